"""The command line: one module per group of verbs. Each verb imports what it needs when it runs.

Imported from outside: export, main, program, sweep.
"""
