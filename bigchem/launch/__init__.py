"""From a configuration to running processes, and what becomes of them.

Imported from outside: cancel, dependencies, dry_run, job, requeue, submit.
"""
