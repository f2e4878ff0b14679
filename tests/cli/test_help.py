"""Every command's help has an example, and every example parses and names only fields, files and runs that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bigchem import __version__ as version
from bigchem.base import toml
from bigchem.base.installed import resources
from bigchem.cli.main import Program, app
from bigchem.cli.options import values
from bigchem.cli.options.submission import AFTER, OPTIONS, read_options
from bigchem.cli.tools.bench import BENCHES, Benches
from bigchem.config import EvaluateConfig, RunConfig
from bigchem.data.build.recipe import BuildConfig
from bigchem.launch.cluster.profile import load_profile
from bigchem.model.presets import PRESETS
from bigchem.plan.from_config import cluster
from bigchem.plan.speed.hardware import GPUS, INTERCONNECTS
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


COMMAND: Any = typer.main.get_command(app)
PATHS = [*walk(COMMAND)]


def command_at(path: Sequence[str]) -> Any:
    command = COMMAND
    for name in path:
        command = command.get_command(typer.Context(command), name)
    return command


def examples(command: Any) -> list[str]:
    pieces = str(command.help).split("Example: ")[1:]
    return [" ".join(piece.split("\n\n")[0].split()) for piece in pieces]


def words_of(example: str) -> list[str]:
    """The words after the program, without the shell's."""
    words = shlex.split(example.replace("$?", "75"))
    words = words[: next((n for n, word in enumerate(words) if word in "<>"), None)]
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


Output = Callable[..., str]


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Output:
    """What the command line prints, in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            COMMAND.main(args=list(words), prog_name="bigchem")
        assert ended.value.code == 0
        return capsys.readouterr().out

    return run


GROUPS = [*dict.fromkeys(path[:depth] for path in PATHS for depth in range(len(path)))]


@pytest.mark.parametrize("path", [*GROUPS, *PATHS], ids=" ".join)
def test_a_help_has_whole_sentences_and_no_names_of_pythons(path: tuple[str, ...], output: Output) -> None:
    """No list of commands is cut, no example broken, and no type, default or placeholder shown as Python names it."""
    page = output(*path, "-h")
    usage, *lines = page.splitlines()
    assert usage.startswith(" ".join(("Usage: bigchem", *path, "[OPTIONS]")))
    assert not re.search(r"[{}<]", usage)
    shown = "\n".join(line for line in lines if not line.startswith("  bigchem "))
    assert not re.search(r"lambda|\{[a-z_]+\}|<\w|\.\.\.|…", shown)
    assert all(len(line) <= 80 for line in shown.splitlines() if "torchrun" not in line)
    assert "-h, --help" in shown


def test_the_help_and_the_shell_know_every_shipped_name() -> None:
    assert {*values.RUNS, *values.RECIPES, *values.SWEEPS} == RECIPES
    assert set(values.TASKS) == set(shipped().scored)
    plan = " ".join(str(option.help) for option in command_at(("plan",)).params)
    assert [name for name in (*GPUS, *INTERCONNECTS) if name not in plan] == []
    assert {*Program.sections["Tools"], *Program.sections["Models"]} <= {path[0] for path in PATHS}
    assert {path[0] for path in PATHS} == {name for names in Program.sections.values() for name in names}


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("bigchem fi", ["files", "fine-tune"]),
        ("bigchem bench ti", ["tiles"]),
        ("bigchem submit ba", ["base"]),
        ("bigchem submit base --cluster a", ["a100"]),
        ("bigchem score --task re", ["retrosynthesis"]),
        ("bigchem export runs/base model --dtype b", ["bf16"]),
        ("bigchem files clusters/h", ["clusters/h100.toml"]),
    ],
)
def test_the_shell_completes(typed: str, completed: list[str], output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_BIGCHEM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(typed.count(" ")))
    assert sorted(output().split()) == completed


def test_the_version_and_the_shells_script_are_shown(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    assert output("--version") == f"bigchem {version}\n"
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    assert "_BIGCHEM_COMPLETE=complete_bash" in output("--show-completion")
