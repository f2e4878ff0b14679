"""The benchmark of consolidation runs on a small model and prints its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_both_programs_are_measured_on_the_same_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bigchem", "bench", "consolidate", "--folder", str(tmp_path), "--json"]
    options = ["--only", "sweep-1m-zero3", "--ranks", "2", "--turns", "1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = {figure["name"].partition(": ")[2]: figure["value"] for figure in json.loads(done.stdout)}
    assert figures.keys() >= {"bigchem export, peak memory", "zero_to_fp32.py", "bigchem export --no-hashes"}
    assert all(value > 0 for value in figures.values())
    assert not list(tmp_path.iterdir())
