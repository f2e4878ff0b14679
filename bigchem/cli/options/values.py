"""Values that options and arguments take by name: shown in the help, and completed by the shell."""

import tomllib
from collections.abc import Callable, Sequence
from typing import Any

import typer

from bigchem.base.installed import resources
from bigchem.model.presets import PRESETS

RUNS, RECIPES, SWEEPS = ("demo", "small", "base", "large", "xl"), ("demo-data", "public-data"), ("demo-sweep",)
"""The shipped files of bigchem/recipes by what they configure."""
TASKS = tuple(tomllib.loads((resources.folder("recipes") / "tasks" / "text-chem-t5.toml").read_text())["tasks"])
CLUSTERS = tuple(resources.names("clusters"))


def completing(names: Sequence[str]) -> Callable[[str], list[str]]:
    """For typer's `autocompletion`: the names that begin as the word does that is being typed."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def cluster(help: str) -> Any:
    """The option --cluster."""
    shown = f"{help} A profile's name ({', '.join(CLUSTERS)}), or its file."
    return typer.Option("--cluster", metavar="PROFILE", help=shown, autocompletion=completing(CLUSTERS))


def task(help: str) -> Any:
    """The option --task."""
    return typer.Option("--task", metavar="TASK", help=help, autocompletion=completing(TASKS))


def preset(help: str) -> Any:
    """The option --preset."""
    shown = f"{help} One of {', '.join(PRESETS)}."
    return typer.Option("--preset", metavar="PRESET", help=shown, autocompletion=completing([*PRESETS]))


def config(names: Sequence[str], help: str) -> Any:
    """The argument that names a configuration: a TOML file, or one of the shipped ones."""
    return typer.Argument(help=f"{help}: a TOML file, or {', '.join(names)}.", autocompletion=completing(names))
