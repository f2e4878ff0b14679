"""Starts, tracks, requeues and cancels runs.

Imported from outside: cancel, dependencies, dry_run, job, requeue, submit.
"""
