"""`bigchem sweep report`, from a checkout."""

from __future__ import annotations

import typer

from bigchem.cli import program
from bigchem.cli.sweep import sweep_report

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(sweep_report)

if __name__ == "__main__":
    program.run(app)
