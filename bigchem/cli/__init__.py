"""The command line: one module per group of verbs. Each verb imports what it needs when it runs.

Imported from outside: bench, export, main, plan, program, sweep.
"""
