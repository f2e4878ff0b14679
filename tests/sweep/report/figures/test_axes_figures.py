from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from planted_sweep import SIZES, TASKS, TRAINING, results_of, write_result

from bigchem.sweep.analysis import analyse as whole
from bigchem.sweep.report.figures.axes import axis_figures
from bigchem.sweep.scores.results import load


@pytest.mark.parametrize(("tokenizers", "losses"), [(("t", "t"), 2), (("t", "u"), 0)])
def test_scores_are_drawn_against_an_axis_and_losses_only_with_one_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizers: tuple[str, str], losses: int
) -> None:
    monkeypatch.setattr(whole, "_curves", lambda cells, keys: {})
    for value, tokenizer in zip((2.0, 10.0), tokenizers, strict=True):
        for mixture in (TASKS[:2], TASKS[:1]):
            content = results_of(SIZES[0], mixture)
            training = TRAINING | {"tokenizer": tokenizer, "sweep": {"axes": {"data.temperature": value}}}
            write_result(tmp_path, content | {"run": f"{content['run']}-{value}", "training": training})
    found = whole.analyse(load([tmp_path], at=["data.temperature=2"]))
    figures = {figure.name: figure for figure in axis_figures(found, found.axes[0])}
    assert len(figures) == 2 + losses
    figure = figures["axis-data.temperature-captioning-bleu4_words"]
    assert figure.inline.count('class="point"') == 4
    assert "data.temperature = 10.0: 0.21" in figure.inline
    best = "best at 2.0, though not certainly, for 0.2M together and 0.2M alone"
    assert figure.caption == f"captioning BLEU-4 (words) against data.temperature: {best}"
    rows = list(csv.DictReader(io.StringIO(figures["axis-data.temperature-captioning-bleu4_words"].csv)))
    assert [(row["setting"], row["regime"]) for row in rows] == [
        ("2.0", "together"),
        ("2.0", "alone"),
        ("10.0", "together"),
        ("10.0", "alone"),
    ]
