"""The benchmark of checkpoints runs on a small model and prints its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_saving_and_resuming_are_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bigchem", "bench", "checkpoint", "--folder", str(tmp_path), "--json"]
    done = subprocess.run(
        [*command, "--preset", "sweep-1m", "--saves", "2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = {figure["name"]: figure for figure in json.loads(done.stdout)}
    assert figures.keys() >= {"writing / the faster dd", "resumed / cold"}
    assert all(figure["value"] > 0 for figure in figures.values())
    assert not list(tmp_path.iterdir())
