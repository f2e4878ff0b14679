"""Slurm's programs and what they say: called with a clean environment and a timeout.

Imported from outside: client, job_output, nodes, options, remedies, setup, squeue.
"""
