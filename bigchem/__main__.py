"""`python -m bigchem`: the command line, where no script `bigchem` is on PATH."""

from bigchem.cli.main import main

main()
