"""Calls of Slurm's programs, with a clean environment and a timeout, and the meaning of their output.

Imported from outside: client, job_output, nodes, options, remedies, setup, squeue.
"""
