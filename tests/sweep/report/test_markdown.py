from __future__ import annotations

from pathlib import Path

import pytest
from planted_sweep import TASKS, write_sweep

from bigchem.sweep.analysis import analyse as whole
from bigchem.sweep.report.markdown import markdown
from bigchem.sweep.scores.results import load


def test_the_claim_the_drawn_metrics_and_their_slopes_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "_curves", lambda cells, keys: {})
    analysis = whole.analyse(load([write_sweep(tmp_path, seeds=(0, 1), noise=0.01)]))
    text = markdown(analysis)
    assert text.startswith(f"**{analysis.claim}**\n\n- ")
    assert all(f"- {sentence}\n" in text for sentence in (*analysis.sentences, *analysis.notes))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    gains = {(g.task, g.parameters): g for g in analysis.gains if g.metric == analysis.headline[g.task]}
    shown = [row for row in rows if len(row) == 5 and row[0].startswith(f"{TASKS[0]}, ") and "M" in row[1]]
    assert any(f"{gain.estimate.value:+.3f}".replace("-", "−") in row[4] for gain in gains.values() for row in shown)
    slopes = {row[0] for row in rows if row[3] == analysis.trends[TASKS[0], analysis.headline[TASKS[0]]].verdict}
    assert any(name.startswith(TASKS[0]) for name in slopes)
    assert {len(row) for row in rows} == {5}
