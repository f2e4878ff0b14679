"""`bigchem plan`: what fits on which GPUs, why not, and how fast, before anything runs.

Imported from outside: choices, from_config, report, table.
"""
