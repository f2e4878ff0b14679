"""A real Slurm on one machine, without systemd, root or a database: `python -m slurm.testbed --help`."""
