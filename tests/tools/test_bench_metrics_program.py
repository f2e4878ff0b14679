"""The benchmark of scoring compares equal values, and says so if they are not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench_metrics_once import ours, plain_generation

TOOLS = Path(__file__).parents[2] / "tools"
PAIRS = [("CCO", "OCC"), ("CC(=O)[O-]", "CC(=O)O"), ("c1ccccc1O", "C("), ("C[C@H](N)O", "CC(N)O")]


def written(path: Path) -> Path:
    rows = [{"source": "s", "target": target, "prediction": prediction} for target, prediction in PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_straightforward_values_are_those_of_score(tmp_path: Path) -> None:
    plain = plain_generation(*map(list, zip(*PAIRS, strict=True)))
    found = ours("generation", set(plain), written(tmp_path / "p.jsonl"), 1)
    assert found.keys() == plain.keys()
    assert all(abs(found[name] - plain[name]) < 1e-9 for name in plain)


def test_the_program_prints_figures_with_their_targets(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "bench_metrics.py"), "--turns", "1", "--workers", "1", "--json"]
    file = written(tmp_path / "p.jsonl")
    done = subprocess.run([*command, "--generation", str(file)], capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    assert [figure["asked"] for figure in figures] == [None, None, None, None, 4.0]
