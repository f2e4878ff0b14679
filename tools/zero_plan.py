"""`bigchem plan`, from a checkout."""

from bigchem.cli import program
from bigchem.cli.tools.plan import plan

if __name__ == "__main__":
    program.run(program.app_of(plan))
