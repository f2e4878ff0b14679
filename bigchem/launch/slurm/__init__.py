"""Slurm's programs and what they say: one way to call them, with a clean environment and a timeout."""
