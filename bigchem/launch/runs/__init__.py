"""Run folders: preparation, ownership, status, history and logs.

Imported from outside: history, logs, owner, prepare, status, status_table.
"""
