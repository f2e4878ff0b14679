"""`bigchem sweep report`, from a checkout."""

from bigchem.cli import program
from bigchem.cli.sweep import sweep_report

if __name__ == "__main__":
    program.run(program.app_of(sweep_report))
