"""`bigchem export`, from a checkout."""

from bigchem.cli import program
from bigchem.cli.export import export

if __name__ == "__main__":
    program.run(program.app_of(export))
