"""Calls Slurm's programs with a clean environment and a timeout, and parses their output.

Imported from outside: client, job_output, nodes, options, remedies, setup, squeue.
"""
