"""`bigchem files`: what comes with bigchem besides its code, for those who have no checkout."""

import sys
from typing import Annotated

import typer

from bigchem.base.installed import resources


def files(
    name: Annotated[
        str | None,
        typer.Argument(help="A file to print, by its name in the list.", autocompletion=lambda: [*resources.every()]),
    ] = None,
) -> None:
    """List the files that come with bigchem, or print one, to start your own from it.

    Run configurations, recipes and tasks; cluster profiles; DeepSpeed configurations; a Dockerfile, an Apptainer
    definition and a conda environment; and the versions of other packages that bigchem was tested with, for
    `pip install -c`.

    Example: bigchem files

    Example: bigchem files clusters/h100.toml > mine.toml
    """
    from bigchem.base.errors import unknown

    known = resources.every()
    if name is None:
        print("\n".join(known))
    elif name in known:
        sys.stdout.write(known[name].read_text(encoding="utf-8"))
    else:
        unknown("shipped file", name, [*known])
