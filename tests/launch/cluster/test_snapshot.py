from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.launch.cluster import snapshot as module
from bigchem.launch.cluster.snapshot import check_own, is_intact, planned, snapshot

SAY = (
    "import bigchem; from bigchem.base.installed.resources import find;"
    "print(bigchem.__file__); print(find('ds_configs', 'zero2', '.json'))"
)
AGAIN = (
    "import sys; from pathlib import Path; from bigchem.launch.cluster.snapshot import planned; print(planned(Path()))"
)


def python(code: str, path: Path, cwd: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONSAFEPATH": "1"}
    words = [sys.executable, "-c", code]
    return subprocess.run(words, env=environment, cwd=cwd, check=True, capture_output=True, text=True).stdout.split()


def test_a_snapshot_is_whole_and_runs_whatever_the_working_folder_holds(tmp_path: Path) -> None:
    made = snapshot(tmp_path / "code")
    (tmp_path / "bigchem.py").write_text("raise SystemExit('the working folder must not be searched')")
    package, ds_config = python(SAY, made, tmp_path)
    assert package == str(made / "bigchem" / "__init__.py")
    assert ds_config == str(made / "bigchem" / "_shipped" / "ds_configs" / "zero2.json")
    assert not [path for path in made.rglob("*") if path.suffix == ".pyc" and "__pycache__" not in path.parts]


def test_a_snapshot_of_an_installed_package_is_the_one_of_its_checkout(tmp_path: Path) -> None:
    """A snapshot has an installed wheel's layout: the shipped files are inside the package."""
    made = snapshot(tmp_path / "code")
    assert python(AGAIN, made, tmp_path) == [made.name]


def test_the_same_source_is_copied_once_and_another_beside_it(tmp_path: Path) -> None:
    first = snapshot(tmp_path / "code")
    assert planned(tmp_path / "code") == first
    before = first.stat().st_mtime_ns
    assert snapshot(tmp_path / "code") == first
    assert first.stat().st_mtime_ns == before
    with (first / "bigchem" / "errors.py").open("a") as file:
        file.write("# edited, as a checkout is\n")
    (second,) = python(AGAIN, first, tmp_path)
    assert second != first.name


def test_an_altered_snapshot_is_set_aside_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = snapshot(tmp_path / "code")
    (made / "bigchem" / "__pycache__").mkdir(exist_ok=True)
    (made / "bigchem" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert is_intact(made)
    monkeypatch.setattr(module.bigchem, "__file__", str(made / "bigchem" / "__init__.py"))
    check_own()
    (made / "bigchem" / "tasks.py").write_bytes(b"\0" * 100)
    assert not is_intact(made)
    with pytest.raises(UserError, match="the snapshot of the code was altered"):
        check_own()
    monkeypatch.undo()
    assert snapshot(tmp_path / "code") == made
    assert is_intact(made)
    assert (tmp_path / "code" / f"{made.name}.altered" / "bigchem" / "tasks.py").read_bytes() == b"\0" * 100
    assert "was altered since it was made" in capsys.readouterr().out
