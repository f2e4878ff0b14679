"""How the ranks of a run find each other, prove who they are, and become a process group.

Imported from outside: environment, extensions, members, process_group, secret.
"""
