"""From a configuration to running processes: rendezvous, clusters, submission, status."""
