"""`bigchem plan`: which settings fit on which GPUs, why others do not, and how fast they are, before anything runs.

Imported from outside: choices, from_config, report, table.
"""
