"""The pages agree with the code: the quickstart runs, commands and links exist, tables are generated.

`python tests/test_docs.py` rewrites the tables of docs/configuration.md and prints the tree for docs/architecture.md.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from distributed import bigchem

from bigchem.base.toml import Section
from bigchem.cli.main import app
from bigchem.config import RunConfig
from bigchem.tasks import TaskConfig

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "ds_configs/README.md",
    ROOT / "slurm/README.md",
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    return [
        line
        for language, text in FENCE.findall(page.read_text())
        if language == "console"
        for line in text.replace("\\\n", " ").splitlines()
        if line.strip()
    ]


def in_a_new_interpreter(*words: str, cwd: Path, stdin: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with stdin.open() as given:
        return subprocess.run(
            ["bigchem", *words],
            cwd=cwd,
            env=environment,
            stdin=given,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


def redirected(words: list[str], folder: Path) -> tuple[list[str], dict[str, Path]]:
    """A command's words before `<` and `>`, and the files behind these."""
    ends = [n for n, word in enumerate(words) if word in ("<", ">")]
    return words[: min(ends, default=len(words))], {words[n]: folder / words[n + 1] for n in ends}


def run_page(page: str, folder: Path, run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Every command of a page, in its order, with the files that it shows."""
    for language, text in FENCE.findall(page):
        if language == "toml":
            name = text.splitlines()[0].removeprefix("# ")
            (folder / name).write_text(text)
            continue
        if language == "csv":
            (folder / "mine.csv").write_text(text)
            continue
        for command in text.splitlines():
            program, *words = shlex.split(command)
            assert program == "bigchem", command
            words, files = redirected(words, folder)
            done = run(*words, cwd=folder, stdin=files.get("<", Path(os.devnull)))
            if ">" in files:
                files[">"].write_text(done.stdout)
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            assert "Traceback" not in done.stderr, command
    assert (folder / "model" / "model.safetensors").is_file()


QUICKSTART = (ROOT / "docs" / "quickstart.md").read_text()


def test_the_quickstart_runs_with_one_of_its_runs(tmp_path: Path) -> None:
    """The one that trains in its own process, with fewer steps, in place of the submitted one. Commands are forked from
    a server: most of their time is imports."""
    page = QUICKSTART.split("\n## A sweep")[0].replace("steps = 40", "steps = 8").replace("rows = 1500", "rows = 500")
    assert (page.count("steps = 8"), page.count("rows = 500")) == (1, 1)
    page, of_submitted = re.subn(r"^bigchem (submit .* --wait|resume .*)\n", "", page, flags=re.MULTILINE)
    assert of_submitted == 2
    run_page(page.replace("runs/second", "runs/first"), tmp_path, bigchem)


@pytest.mark.thorough
def test_the_quickstart_runs_from_top_to_bottom(tmp_path: Path) -> None:
    run_page(QUICKSTART, tmp_path, in_a_new_interpreter)
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


def test_own_data_become_predictions_as_their_page_says(tmp_path: Path) -> None:
    """With 60 rows, 4 steps and short predictions, and the second training as far as its settings."""
    page = re.sub(r"^```csv\n.*?^```$", "", (ROOT / "docs" / "own-data.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    few = "--set train.steps=4 --set schedule.warmup_steps=1"
    few += " --set evaluate.bootstrap=20 --set evaluate.max_new_tokens=16"
    page, trained = re.subn(r"^(bigchem fine-tune molecules.csv)$", rf"\1 {few}", page, flags=re.MULTILINE)
    page, again = re.subn(r"^(bigchem fine-tune .*--out runs/again)$", r"\1 --dry-run", page, flags=re.MULTILINE)
    page, asked = re.subn(r"^(bigchem predict [^-]*)", r"\1--max-new-tokens 16 ", page, flags=re.MULTILINE)
    assert (trained, again, asked) == (1, 1, 2)
    from synthetic_rows import config, read  # here: as a program, this file finds no helpers of pytest's path

    rows = [row for row in read(config(seed=7, rows=300)) if row.task == "captioning"][:60]
    with (tmp_path / "molecules.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("smiles", "caption"), *((row.source, row.target) for row in rows)])
    (tmp_path / "inputs.txt").write_text(json.dumps({"source": rows[0].source, "target": rows[0].target}) + "\n")
    run_page(page, tmp_path, bigchem)
    assert json.loads((tmp_path / "predictions.jsonl").read_text())["target"] == rows[0].target


@pytest.mark.parametrize("page", [ROOT / "docs" / "model.md", ROOT / "docs" / "evaluation.md"], ids=lambda p: p.name)
def test_the_python_of_a_page_runs(page: Path) -> None:
    pieces = [text for language, text in FENCE.findall(page.read_text()) if language == "python"]
    assert pieces
    for piece in pieces:
        subprocess.run([sys.executable, "-c", piece], check=True)


def known_options(words: list[str]) -> set[str] | None:
    """Options of the subcommand that the words name, or None if there is no such subcommand."""
    command = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "get_command") or word.startswith("-"):
            break
        command = command.get_command(typer.Context(command), word)
        if command is None:
            return None
    options = (getattr(parameter, names, []) for parameter in command.params for names in ("opts", "secondary_opts"))
    return {option for names in options for option in names} | {"--help"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_bigchem_command_that_is_documented_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(page):
        words = shlex.split(command.removeprefix("bigchem testbed run "))
        if words[0] == "make":
            assert set(words[1:]) <= targets, command
        elif words[0] == "bigchem":
            options = known_options(words[1:])
            assert options is not None, command
            assert {w for w in words if w.startswith("--") and w != "--debug"} <= options, command


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


CONFIGURATION = ROOT / "docs" / "configuration.md"
BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


def sections(section: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
    """A section and those inside it, each with the prefix of its fields' names."""
    yield prefix, section
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from sections(field.annotation, f"{prefix}{name}.")


def allowed(schema: dict[str, Any]) -> str:
    """The values that a field takes, from its JSON schema."""
    if "anyOf" in schema:
        some = [allowed(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(some) + (", or omitted" if len(some) < len(schema["anyOf"]) else "")
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " / ".join(f"`{choice}`" for choice in schema["enum"])
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])}, each {allowed(schema['prefixItems'][0])}"
    if schema["type"] in ("array", "object") and schema.get("additionalProperties") is not True:
        kind, key = {"array": ("list", "items"), "object": ("table", "additionalProperties")}[schema["type"]]
        inner = allowed(schema[key])
        return f"{kind} of {inner}{'s' if inner.isalpha() else ''}"
    named = {"boolean": "true / false", "object": "table"}.get(schema["type"], schema["type"])
    bounds = [f"{sign} {schema[key]:g}" for key, sign in BOUNDS.items() if abs(schema.get(key, 1e18)) < 1e18]
    return f"{named} {', '.join(bounds)}".strip()


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {as_toml(inner)}' for key, inner in value.items())}}}"
    return value if isinstance(value, str) else json.dumps(value)


def table(prefix: str, section: type[Section]) -> str:
    """Name, values, default and docstring of every field."""
    lines, properties = ["| field | value | default | meaning |", "|---|---|---|---|"], section.model_json_schema()
    for name, default in section():
        if not isinstance(default, Section):
            meaning = " ".join((section.model_fields[name].description or "").split())
            shown = "-" if default is None else f"`{as_toml(default)}`"
            values = allowed(properties["properties"][name])
            lines.append(f"| `{prefix}{name}` | {values} | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


def with_tables(page: str) -> str:
    """docs/configuration.md with the tables that bigchem.config makes, under the headings that the page has."""
    tables = {prefix.rstrip("."): table(prefix, section) for prefix, section in sections(RunConfig)}
    assert ["", *re.findall(r"^#+ \[(.*)\]$", page, re.MULTILINE)] == [*tables]
    remaining = iter(tables.values())
    return re.sub(r"^\| field .*\n(?:\|.*\n)+", lambda _: next(remaining), page, flags=re.MULTILINE)


def test_the_configuration_page_has_every_field_as_its_docstring_says() -> None:
    page = CONFIGURATION.read_text()
    assert page == with_tables(page), "python tests/test_docs.py rewrites the tables"
    assert len(re.findall(r"^\| field", page, re.MULTILINE)) == len([*sections(RunConfig)])


DATA = ROOT / "docs" / "data.md"


def with_records(page: str) -> str:
    """docs/data.md with the table of a task's record."""
    properties = TaskConfig.model_json_schema()["properties"]
    lines = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, field in TaskConfig.model_fields.items():
        default = (
            "required" if field.is_required() else "-" if field.default is None else f"`{json.dumps(field.default)}`"
        )
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        lines.append(f"| `{name}` | {allowed(properties[name])} | {default} | {meaning} |")
    return re.sub(r"^\| field .*\n(?:\|.*\n)+", lambda _: "\n".join(lines) + "\n", page, flags=re.MULTILINE)


def test_the_data_page_has_every_field_of_a_task_as_its_docstring_says() -> None:
    assert DATA.read_text() == with_records(DATA.read_text()), "python tests/test_docs.py rewrites the table"


def tree() -> str:
    """Every package, in alphabetical order: the first paragraph of its docstring, and its modules."""
    lines = []
    for package in sorted((ROOT / "bigchem").rglob("__init__.py")):
        depth = len(package.relative_to(ROOT).parents) - 2
        modules = sorted(p.stem for p in package.parent.glob("*.py") if not p.stem.startswith("__"))
        docstring = ast.get_docstring(ast.parse(package.read_text())) or ""
        about = f"{docstring.split(chr(10) * 2)[0]} [{' '.join(modules)}]".replace("\n", " ")
        lines += textwrap.wrap(
            about,
            118,
            initial_indent=f"{'  ' * depth}{package.parent.name + '/':<{22 - 2 * depth}}",
            subsequent_indent=" " * 22,
        )
    return "\n".join(lines)


def test_the_tree_of_the_architecture_page_is_the_packages() -> None:
    """`python tests/test_docs.py` prints the tree to paste."""
    assert tree() in (ROOT / "docs" / "architecture.md").read_text()


FOREIGN = ("Invalid partition name specified", "Invalid account or account/partition", "No module named", "srun: error")
"""Messages of Slurm and Python."""


def test_the_cookbooks_messages_are_those_of_the_code() -> None:
    table = (ROOT / "slurm" / "README.md").read_text().split("## Errors by message")[1].split("\n## ")[0]
    code = "".join(path.read_text() for path in (ROOT / "bigchem").rglob("*.py"))
    messages = [m for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for m in re.findall(r"`([^`]+)`", row)]
    assert len(messages) > 15
    for message in messages:
        if not message.startswith(FOREIGN):
            for piece in re.split(r"\.\.\.", message):
                assert piece.strip(" ,:") in code, message


if __name__ == "__main__":
    CONFIGURATION.write_text(with_tables(CONFIGURATION.read_text()))
    DATA.write_text(with_records(DATA.read_text()))
    print(tree())
