"""Hints name packages that really install, and another project's `bigchem` is noticed."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from bigchem.base.installed import packages

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_HINTED = {"dev", "docs"}
"""Extras of those who change bigchem."""


def test_hints_name_what_the_extras_bring() -> None:
    extras = {name: [one.split(";")[0] for one in needed] for name, needed in PROJECT["optional-dependencies"].items()}
    assert {name: needed for name, needed in extras.items() if name not in NOT_HINTED} == packages.EXTRAS
    assert PROJECT["name"] == packages.DISTRIBUTION


@pytest.mark.parametrize(
    ("prefix", "has_pip", "command"),
    [
        (sys.prefix, True, "pip install 'fcd>=1.2.2'"),
        ("/elsewhere", True, f"{sys.executable} -m pip install 'fcd>=1.2.2'"),
        (sys.prefix, False, f"uv pip install --python {sys.executable} 'fcd>=1.2.2'"),
    ],
    ids=["in an active environment", "in one that is not", "in one that uv has made"],
)
def test_a_hint_installs_into_this_environment(
    prefix: str, has_pip: bool, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", prefix)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(packages, "find_spec", lambda name: object() if has_pip else None)
    assert packages.install_extra("fcd") == command


def test_no_hint_and_no_page_installs_the_other_project() -> None:
    """`pip install bigchem` would, and `bigchem-t5[...]` is found only where an index has it."""
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "bigchem").rglob("*.py")]
    assert len(files) > 300
    wrong = re.compile(r"(\binstall|--from|--with)( -\S+)* ['\"]?bigchem(\[|['\"`\s]|$)")
    assert [str(path) for path in files if wrong.search(path.read_text())] == []
    assert wrong.search("pip install 'bigchem[serve]'")


def test_the_other_project_is_noticed_by_its_distribution_and_by_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert packages.clash() is None
    (tmp_path / "algos.py").touch()
    assert packages.clash(tmp_path) == f"{tmp_path} holds another project's algos.py"
    (tmp_path / "bigchem-0.11.0.dist-info").mkdir()
    (tmp_path / "bigchem-0.11.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: bigchem\nVersion: 0.11.0\n"
    )
    assert "the distribution bigchem 0.11.0 is installed too" in str(packages.clash())
