"""Starts runs from a configuration, and tracks, requeues and cancels them.

Imported from outside: cancel, dependencies, dry_run, job, requeue, submit.
"""
