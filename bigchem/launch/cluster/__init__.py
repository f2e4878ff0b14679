"""Cluster profiles, and what bigchem makes of them: submitit's executors, job arrays, local processes.

Imported from outside: arrays, executors, local, pickles, profile, scratch, snapshot.
"""
