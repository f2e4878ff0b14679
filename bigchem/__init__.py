"""bigchem: one T5 for chemistry and language, from a laptop to a Slurm cluster."""

__version__ = "0.1.0"
