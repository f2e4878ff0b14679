"""A real Slurm on one machine, without systemd, root or a database: `bigchem testbed`.

Imported from outside: bed, conf.
"""
