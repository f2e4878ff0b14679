"""A process finds its environment's programs, whatever the shell's PATH."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from own_path import without_ninja

from bigchem.base.environment import own_programs_first

BIN = Path(sys.executable).parent


def test_a_command_finds_its_environments_ninja_from_a_shell_that_has_none(tmp_path: Path) -> None:
    system = without_ninja(tmp_path / "bin")
    assert shutil.which("ninja", path=str(system)) is None
    environment = {**os.environ, "PATH": str(system)}
    command = [BIN / "bigchem", "doctor", "--processes", "0", "--runs", tmp_path, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    (compiler,) = [check for check in json.loads(done.stdout) if check["name"] == "compiler"]
    assert compiler["verdict"] == "ok"
    assert compiler["found"] == f"{system}/g++, {BIN}/ninja"


def test_the_environment_comes_first_and_once_and_the_rest_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"/opt/gcc/bin:{BIN}:/usr/bin")
    for _ in range(2):
        own_programs_first()
        assert os.environ["PATH"] == f"{BIN}:/opt/gcc/bin:/usr/bin"


def test_a_systems_own_python_does_not_come_before_a_persons_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    monkeypatch.setenv("PATH", f"/opt/gcc/bin:{BIN}:/usr/bin")
    own_programs_first()
    assert os.environ["PATH"] == f"/opt/gcc/bin:{BIN}:/usr/bin"
