"""`bigchem testbed`, from a checkout: `python -m slurm.testbed --help`."""

from bigchem.cli import program
from bigchem.cli.tools.testbed import app

if __name__ == "__main__":
    program.run(app)
