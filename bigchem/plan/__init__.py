"""Memory, disk and time arithmetic."""
