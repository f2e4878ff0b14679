"""`bigchem plan`, from a checkout."""

from __future__ import annotations

import typer

from bigchem.cli import program
from bigchem.cli.plan import plan

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(plan)

if __name__ == "__main__":
    program.run(app)
