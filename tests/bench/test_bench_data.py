"""The benchmark of the data path runs on small sizes and prints its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_figure_is_there_with_its_target_and_whether_it_holds(small_data: Path) -> None:
    command = [sys.executable, "-m", "bigchem", "bench", "data", "--data", str(small_data), "--json"]
    done = subprocess.run([*command, "--steps", "20", "--rows", "100000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = {figure["name"].strip(): figure for figure in json.loads(done.stdout)}
    assert len(figures) == 15
    for name, figure in figures.items():
        assert figure["value"] > 0, name
        if figure["asked"] is not None:
            better = figure["value"] >= figure["asked"] if figure["at_least"] else figure["value"] <= figure["asked"]
            assert figure["holds"] is better
    # These do not depend on how fast the machine is.
    assert figures["largest deviation of 10^6 prefixes from their quota"]["holds"]
    assert figures["cost of the most expensive rank over the mean, worst of 20 steps"]["holds"]
