"""What a run's folder says of the run: its state, its owner, its log files, how attempts end. Written by train, read
by launch.

Imported from outside: exit_codes, lifecycle, log_files, notify, ownership, state.
"""
