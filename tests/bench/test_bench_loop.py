"""The benchmark of the loop runs on a small model and times a bare step for each of the loop's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_loop_is_timed_beside_bare_steps(small_data: Path) -> None:
    command = [sys.executable, "-m", "bigchem", "bench", "loop", "--data", str(small_data)]
    command += ["--preset", "sweep-0.2m", "--tokens", "1024", "--turns", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: over the target, which means nothing at this size
    figures = dict(re.findall(r"sweep-0\.2m: (.+?) +│ +(-?[\d.e+-]+) ", done.stdout))
    assert float(figures["bare step, median"]) > 0
    assert -90 < float(figures["overhead in wall time, median of 1 turns of 10 steps"]) < 900
    assert float(figures["wait for batches per step, median"]) < 1000
