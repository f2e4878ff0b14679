"""The documentation cannot rot: the quickstart's commands are run, the rest's are known, its links lead somewhere."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import typer.main

from bigchem.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
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


def test_the_quickstart_runs_from_top_to_bottom(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for language, text in FENCE.findall((ROOT / "docs" / "quickstart.md").read_text()):
        if language == "toml":
            name = text.splitlines()[0].removeprefix("# ")
            (tmp_path / name).write_text(text)
            continue
        for command in text.splitlines():
            words = shlex.split(command)
            done = subprocess.run(
                words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            assert "Traceback" not in done.stderr, command
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("page", [ROOT / "docs" / "model.md"], ids=lambda p: p.name)
def test_the_python_of_a_page_runs(page: Path) -> None:
    pieces = [text for language, text in FENCE.findall(page.read_text()) if language == "python"]
    assert pieces
    for piece in pieces:
        subprocess.run([sys.executable, "-c", piece], check=True)


def known_options(words: list[str]) -> set[str] | None:
    """Options of the subcommand that the words name, or None if there is no such subcommand."""
    command = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "get_command"):
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
        words = shlex.split(command)
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


def test_every_configuration_field_is_in_its_page() -> None:
    from bigchem.base.toml import Section
    from bigchem.config import RunConfig

    page = (ROOT / "docs" / "configuration.md").read_text()
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            for inner in section.model_fields:
                assert f"`{name}.{inner}`" in page, f"{name}.{inner} is not in docs/configuration.md"
        else:
            assert f"`{name}`" in page


def tree() -> str:
    """Every room of the package, in alphabetical order: the first paragraph of its docstring, and its modules."""
    lines = []
    for package in sorted((ROOT / "bigchem").rglob("__init__.py")):
        depth = len(package.relative_to(ROOT).parents) - 2
        modules = sorted(p.stem for p in package.parent.glob("*.py") if not p.stem.startswith("__"))
        docstring = ast.get_docstring(ast.parse(package.read_text())) or ""
        about = f"{docstring.split(chr(10) * 2)[0]} [{' '.join(modules)}]".replace("\n", " ")
        lines += textwrap.wrap(
            about,
            118,
            initial_indent=f"{'  ' * depth}{package.parent.name + '/':<{21 - 2 * depth}}",
            subsequent_indent=" " * 21,
        )
    return "\n".join(lines)


def test_the_tree_of_the_architecture_page_is_the_packages() -> None:
    """Where this fails, `python tests/test_docs.py` prints the tree to paste."""
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
    print(tree())
