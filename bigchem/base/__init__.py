"""Foundations: errors, strict TOML and JSON, atomic writes, file locks, progress. Imports no other part of bigchem.

Imported from outside: atomic, environment, errors, file_lock, git_lfs, json_file, json_kinds, jsonl, masking,
printable, progress, toml.
"""
