"""A typer command from a plain command line: newer typers parse with pydantic, which a bare machine may lack."""

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import typer

from bigchem.base.errors import UserError


def parser_of(command: Callable[..., None]) -> argparse.ArgumentParser:
    """The command's options: their names, types, defaults and help. Lists are repeatable; a bool is a flag."""
    made = argparse.ArgumentParser(description=inspect.getdoc(command), formatter_class=argparse.RawTextHelpFormatter)
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind, option = get_args(hints[name])
        if NoneType in get_args(kind):
            kind = next(part for part in get_args(kind) if part is not NoneType)
        several = get_origin(kind) is list
        settings: dict[str, Any] = {"default": parameter.default, "help": option.help, "dest": name}
        if kind is bool:
            settings["action"] = "store_true"
        else:
            settings |= {"type": get_args(kind)[0] if several else kind, "action": "append" if several else "store"}
        made.add_argument(f"--{name.replace('_', '-')}", **settings)
    return made


def run(command: Callable[..., None], arguments: Sequence[str]) -> None:
    """Runs the command, and exits as `bigchem` would."""
    options = vars(parser_of(command).parse_args(arguments))
    try:
        command(**options)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
