from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from runs import config_of

from bigchem.tasks import TRAINABLE_NAMES
from bigchem.train.engine import StepLoss
from bigchem.train.saving import Done
from bigchem.train.tracking import Tracker


@pytest.mark.parametrize("peak", [None, 4e12])
def test_mfu_is_told_where_the_peak_is_known(peak: float | None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = config_of(tmp_path, tmp_path, "run")
    config.run_dir.mkdir()
    loss = StepLoss(torch.ones(len(TRAINABLE_NAMES)), torch.ones(len(TRAINABLE_NAMES)), stop=False)
    with Tracker(config, 0, enabled=True, peak_flops=peak) as tracker:
        tracker.log(Done(1, 4, 100), loss, 1e-3, 1.0, tokens=100, room=120, flops=2e12, wait_s=0.0)
    row = json.loads((config.run_dir / "metrics.jsonl").read_text())
    if peak is None:
        assert "mfu" not in row
        assert "mfu" not in capsys.readouterr().out
    else:
        assert row["mfu"] == pytest.approx(row["tflops"] / 4)
        assert f"mfu {row['mfu']:.1%}" in capsys.readouterr().out
