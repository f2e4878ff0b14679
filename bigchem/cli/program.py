"""Shared by all commands: user errors print one to three lines, without a traceback, and exit with 2."""

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from bigchem.base.environment import before_torch
from bigchem.base.errors import UserError, as_user_error
from bigchem.base.printable import printable_lines
from bigchem.cli.options.verbs import App

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field: --set train.steps=300 (repeatable)."),
]
PASSES_ON = ["testbed", "run"]
"""The command whose further arguments are those of another program."""
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def app_of(command: Callable[..., object]) -> typer.Typer:
    """A program of one command."""
    app = App()
    app.command()(command)
    return app


def run(app: typer.Typer, name: str | None = None) -> None:
    """Runs a command line. `--debug`, anywhere in it, shows tracebacks. name: the program's; default: as called."""
    before_torch(os.environ)
    own, others = split_arguments(sys.argv[1:])
    debug = "--debug" in own
    try:
        app(args=[word for word in own if word != "--debug"] + others, prog_name=name)
    except BrokenPipeError:  # `bigchem status | head`
        sys.stderr.close()
        sys.exit(1)
    except (UserError, OSError) as error:
        if debug:
            raise
        shown = str(as_user_error(error))
        print(f"error: {printable_lines(shown)}", file=sys.stderr)  # it may quote rows, which hold anything
        sys.exit(2)


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """bigchem's own arguments, and those of a program that it runs."""
    words = [place for place, word in enumerate(arguments) if not word.startswith("-")]
    if [arguments[place] for place in words[:2]] != PASSES_ON or len(words) == 2:
        return arguments, []
    return arguments[: words[2]], arguments[words[2] :]
