"""`bigchem bench`, from a checkout."""

from bigchem.cli import program
from bigchem.cli.bench import app

if __name__ == "__main__":
    program.run(app)
