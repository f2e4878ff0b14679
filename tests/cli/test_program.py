"""What of a command line is bigchem's own."""

from __future__ import annotations

import sys
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from bigchem.base.errors import UserError
from bigchem.cli import main, program
from bigchem.cli.options.verbs import App


@pytest.mark.parametrize(
    ("line", "others"),
    [
        ("bigchem testbed run python x.py --debug", "python x.py --debug"),
        ("bigchem --debug testbed run --debug srun hostname", "srun hostname"),
        ("bigchem testbed run", ""),
        ("bigchem status runs --debug", ""),
        ("bigchem status testbed run --debug", ""),
    ],
)
def test_a_program_that_bigchem_runs_keeps_its_arguments(line: str, others: str) -> None:
    words = line.split()[1:]
    own, passed = program.split_arguments(words)
    assert (own + passed, " ".join(passed)) == (words, others)


@pytest.mark.parametrize("line", ["--debug status", "status --debug"])
def test_debug_is_accepted_anywhere_and_shows_the_error(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()

    @app.callback()
    def options(debug: Annotated[bool, typer.Option("--debug")] = False) -> None:
        """A program."""

    @app.command()
    def status() -> None:
        """Fail."""
        raise UserError("no such folder")

    monkeypatch.setattr(sys, "argv", ["bigchem", *line.split()])
    with pytest.raises(UserError):
        program.run(app)
    monkeypatch.setattr(sys, "argv", ["bigchem", "status"])
    with pytest.raises(SystemExit) as ended:
        program.run(app)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("export run out --dtype fp7", "'fp32', 'bf16'"),
        ("evaluate run --split train", "'valid', 'test'"),
        ("score file --task captioning --quoting all", "'standard', 'none'"),
        ("predict run --task captioning CCO --precision fp7", "'auto', 'fp32', 'tf32', 'bf16'"),
    ],
)
def test_a_word_that_an_option_does_not_take_is_refused_with_those_it_takes(line: str, known: str) -> None:
    done = CliRunner().invoke(main.app, line.split())
    assert done.exit_code == 2
    assert known in done.output
