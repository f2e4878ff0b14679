"""A run's records in its folder: state, owner, log files, exit codes. Written by train, read by launch.

Imported from outside: exit_codes, folder, lifecycle, log_files, notify, ownership, state.
"""
