"""`bigchem export`, from a checkout."""

from __future__ import annotations

import typer

from bigchem.cli import program
from bigchem.cli.export import export

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(export)

if __name__ == "__main__":
    program.run(app)
