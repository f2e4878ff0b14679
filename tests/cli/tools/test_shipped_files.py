"""`bigchem files` lists and prints what comes with bigchem besides its code."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.cli.tools.files import files

ROOT = Path(__file__).parents[3]


def test_every_kind_is_listed_and_what_is_printed_is_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    files()
    listed = capsys.readouterr().out.split()
    assert {"clusters/h100.toml", "ds_configs/zero2.json", "recipes/base.toml", "constraints.txt"} < set(listed)
    assert {"recipes/tasks/text-chem-t5.toml", "environments/Dockerfile"} < set(listed)
    files("clusters/h100.toml")
    printed = capsys.readouterr().out
    assert printed == (ROOT / "slurm" / "clusters" / "h100.toml").read_text()
    assert tomllib.loads(printed)["nodes"] > 0


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown shipped file 'clusters/h200.toml'\nnext: did you mean"):
        files("clusters/h200.toml")
