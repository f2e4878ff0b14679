"""Every command's help has an example, and every example parses and names only fields, files and runs that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bigchem.base import toml
from bigchem.base.installed import resources
from bigchem.cli.bench import BENCHES, Benches
from bigchem.cli.main import app
from bigchem.cli.submission_options import AFTER, OPTIONS, read_options
from bigchem.config import EvaluateConfig, RunConfig
from bigchem.data.build.recipe import BuildConfig
from bigchem.launch.cluster.profile import load_profile
from bigchem.model.presets import PRESETS
from bigchem.plan.from_config import cluster
from bigchem.sweep.grid import expand, load_grid
from bigchem.tasks import shipped

ROOT = Path(__file__).parents[2]
RECIPES = {path.stem for path in resources.folder("recipes").glob("*.toml")}


def planned(sweep: str, overrides: Sequence[str] = ()) -> list[RunConfig]:
    """A sweep's runs, without the budgets of `alone`, which are computed from the data."""
    return expand(load_grid(sweep, tuple(overrides)).model_copy(update={"alone": None}))


RUNS = {f"runs/{name}" for name in RECIPES - {"demo"}} | {str(config.run_dir) for config in planned("demo-sweep")}


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command. Benchmarks are not imported: some take seconds."""
    if isinstance(command, Benches):
        yield from ((*path, name) for name in BENCHES)
    elif not hasattr(command, "commands"):
        yield path
    else:
        for name, child in command.commands.items():
            yield from walk(child, (*path, name))


PATHS = [*walk(typer.main.get_command(app))]


def command_at(path: Sequence[str]) -> Any:
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.get_command(typer.Context(command), name)
    return command


def examples(command: Any) -> list[str]:
    pieces = str(command.help).split("Example: ")[1:]
    return [" ".join(piece.split("\n\n")[0].split()) for piece in pieces]


def words_of(example: str) -> list[str]:
    """The words after the program, without the shell's."""
    words = shlex.split(example.replace("$?", "75"))
    words = words[: words.index("<")] if "<" in words else words
    return words[words.index("bigchem") + 1 :]


def load(path: tuple[str, ...], name: str, overrides: Sequence[str]) -> None:
    """Loads the configuration that the command's `--set` overrides, the shipped one of that name if there is one."""
    if path[0] == "evaluate":
        table: dict[str, Any] = {}
        for override in overrides:
            toml.apply_override(table, override)
        toml.validate(EvaluateConfig, table, "--set")
    elif path[0] == "sweep":
        planned(name if name in RECIPES else "demo-sweep", overrides)
    else:
        kind, default = (
            (BuildConfig, "demo-data") if path[0] == "data" and path[1] != "preview" else (RunConfig, "demo")
        )
        toml.load(kind, resources.find("recipes", name if name in RECIPES else default, ".toml"), overrides)


def check_names(words: Sequence[str], given: dict[str, Any]) -> None:
    """The files, tasks, GPUs, and runs of shipped configurations that an example names exist."""
    for word in words:
        if word.startswith(("docs/", "slurm/")):
            assert [*ROOT.glob(word)], word
        if word.startswith("runs/") and word != "runs/demo":
            assert {word, *map(str, Path(word).parents)} & RUNS, word
    for name in (given.get("config"), given.get("grid"), given.get("recipe"), *given.get("paths", ())):
        assert name is None or re.search(r"\.toml$|/", name) or name in RECIPES | PRESETS.keys(), name
    presets, tasks = given.get("preset") or [], given.get("task") or []
    assert {*([presets] if isinstance(presets, str) else presets)} <= PRESETS.keys()
    assert {*([tasks] if isinstance(tasks, str) else tasks)} <= {*shipped().scored, "solubility"}
    if given.get("tune"):
        load_profile(given["tune"])
    elif given.get("gpu") and not given["gpu"].endswith(".toml"):
        cluster(given["gpu"], given["gpus"], given["nodes"], given["between"])
    if given.get("cluster"):
        profile = re.sub(r"^slurm/", f"{ROOT}/slurm/", given["cluster"])
        read_options(**{key: given[key] for key in OPTIONS if key in given and key not in AFTER}).resolve(profile)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_the_examples_of_a_command_parse_and_name_what_exists(path: tuple[str, ...]) -> None:
    command = command_at(path)
    lines = examples(command)
    assert any(line.startswith(" ".join(("bigchem", *path))) for line in lines)
    for line in lines:
        words = words_of(line)
        assert tuple(words[: len(path)]) == path, line
        given = command.make_context(line, words[len(path) :]).params
        check_names(words, given)
        subject = next((given[key] for key in ("config", "grid", "recipe", "run") if given.get(key)), "")
        load(path, Path(subject).name, given.get("overrides") or ())


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_override_in_the_help_is_accepted(path: tuple[str, ...]) -> None:
    command = command_at(path)
    text = " ".join([str(command.help), *(str(getattr(parameter, "help", "")) for parameter in command.params)])
    for override in re.findall(r"--set ([\w.]+=[^\s,)]+)", text):
        load(path, "", [override.rstrip(".")])
    for override in re.findall(r"--set-cluster ([\w.-]+=[^\s,)]+)", text):
        read_options(set_cluster=[override]).resolve("h100")
