"""`bigchem bench`, from a checkout."""

from bigchem.cli import program
from bigchem.cli.tools.bench import app

if __name__ == "__main__":
    program.run(app)
