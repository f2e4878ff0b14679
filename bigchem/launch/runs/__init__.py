"""Runs by their folders: prepared, owned, asked for their status, history and logs.

Imported from outside: history, logs, owner, prepare, status, status_table.
"""
