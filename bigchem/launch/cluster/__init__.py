"""Cluster profiles, and the jobs made from them: submitit's executors, job arrays, local processes.

Imported from outside: arrays, executors, fork_server, local, pickles, profile, scratch, snapshot.
"""
