"""How a run's ranks find each other, authenticate and form a process group.

Imported from outside: environment, extensions, members, process_group, secret.
"""
