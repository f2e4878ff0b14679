"""A data folder on disk or at a URL: index, shards, shared cache, verification.

Imported from outside: cache, columns, index, remote, shards, tasks_at, verify.
"""
