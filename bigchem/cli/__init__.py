"""The command line: one module for a group of verbs. Nothing heavy is imported before a verb needs it.

Imported from outside: bench, export, main, plan, program, sweep.
"""
