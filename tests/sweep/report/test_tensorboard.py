from __future__ import annotations

from pathlib import Path

import pytest
from planted_sweep import SIZES, write_sweep
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from bigchem.base.errors import UserError
from bigchem.sweep.report.tensorboard import write_tensorboard
from bigchem.sweep.report.write_report import study


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_tensorboard_has_the_metrics_gains_and_hparams_of_the_analysis(tmp_path: Path) -> None:
    analysis = study([write_sweep(tmp_path / "sweep", alone=("captioning",))])
    write_tensorboard(analysis, tmp_path / "board")
    for regime in ("together", "alone"):
        scalars = [(e.step, e.value) for e in read(tmp_path / "board" / regime).Scalars("captioning/loss")]
        cells = analysis.cells_of(("captioning", "loss"), "together" if regime == "together" else "alone")
        assert scalars == [(c.parameters, pytest.approx(c.estimate.value)) for c in cells if c.estimate]
    low = read(tmp_path / "board" / "gain.low").Scalars("captioning/bleu4_words")
    gains = analysis.gains_of(("captioning", "bleu4_words"))
    assert [e.value for e in low] == pytest.approx([g.estimate.low for g in gains])
    slope = read(tmp_path / "board" / "gain").Scalars("captioning/bleu4_words/slope")
    assert slope[0].value == pytest.approx(0.03)
    assert "forward/top1" not in read(tmp_path / "board" / "alone").Tags()["scalars"]
    runs = sorted((tmp_path / "board" / "runs").iterdir())
    assert len(runs) == 2 * len(SIZES)
    assert "_hparams_/session_start_info" in read(runs[0]).summary_metadata


def test_writing_again_replaces_what_was_there(tmp_path: Path) -> None:
    for sizes in (SIZES, SIZES[:1]):
        write_tensorboard(study([write_sweep(tmp_path / str(len(sizes)), sizes=sizes, alone=())]), tmp_path / "board")
    assert len(list((tmp_path / "board" / "runs").iterdir())) == 1


@pytest.mark.parametrize("inside", ["demo/checkpoint", ""])
def test_what_others_wrote_is_refused_before_anything_is_read(tmp_path: Path, inside: str) -> None:
    from bigchem.cli.main import app

    file = tmp_path / "board" / inside
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x")
    words = ["sweep", "report", "absent.csv", "--out", str(tmp_path / "out"), "--tensorboard", str(tmp_path / "board")]
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, UserError)
    assert error.where == str(tmp_path / "board")
    assert file.read_text() == "x"
