"""Cluster profiles and what they turn into: submitit's executors, job arrays, local processes.

Imported from outside: arrays, executors, local, pickles, profile, scratch, snapshot.
"""
