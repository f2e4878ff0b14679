"""Verbs beside the path from data to predictions: measuring, planning, a Slurm to try things on, the shipped files.

Imported from outside: bench, doctor, files, plan, testbed.
"""
