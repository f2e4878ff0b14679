from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from hparams_tab import hparams_tab
from runs import config_of

from bigchem.config import RunConfig
from bigchem.train.logging.hparams import HParams
from bigchem.train.logging.scores import share_scores

SCORE = {"task": "forward", "metric": "top1", "value": 0.5, "group": ""}


def started(runs: Path, name: str, lr: float = 1e-3) -> tuple[RunConfig, HParams]:
    config = config_of(
        runs, runs, name, optimizer={"lr": lr}, data={"mixture": {"forward": 2.0, "captioning": 1.0}, "path": "data"}
    )
    config.run_dir.mkdir(exist_ok=True)
    shape = {"parameters": 2000, "non_embedding_parameters": 1500}
    (config.run_dir / "model.json").write_text(json.dumps(shape))
    return config, HParams(config)


def test_the_tab_has_what_decides_a_run_and_its_losses_and_no_other_field(tmp_path: Path) -> None:
    _, row = started(tmp_path, "a")
    row.show(5, {"loss": 2.0, "valid_loss": 3.0, "tokens_per_s": 9.0})
    row.close(failed=False)
    tab = hparams_tab(tmp_path)
    (found,) = tab.rows.values()
    expected = {
        "parameters": 2000.0,
        "non_embedding_parameters": 1500.0,
        "tokens": 8955.0,
        "mixture": "forward 2, captioning 1",
        "lr": 1e-3,
        "global_tokens": 1500.0,
        "seed": 0.0,
        "preset": "sweep-0.2m",
    }
    assert found.hparams | expected == found.hparams
    assert not [name for name in found.hparams if "." in name]  # no dotted field but the axes of a sweep
    assert found.metrics == {"last/loss": (2.0, 5), "last/validation_loss": (3.0, 5)}
    assert tab.metrics == ["last/loss", "last/validation_loss"]
    assert found.status == "STATUS_SUCCESS"


def test_the_tab_of_several_runs_begins_with_what_differs_and_has_the_scores_of_any(tmp_path: Path) -> None:
    """The first one was not evaluated, and ended with an error."""
    _, first = started(tmp_path, "a")
    first.close(failed=True)
    second, row = started(tmp_path, "b", lr=2e-3)
    row.close(failed=False)
    of_class = {**SCORE, "group": "class 1"}
    share_scores(second, second.run_dir, {"split": "test", "step": 6, "metrics": [SCORE, of_class]})
    tab = hparams_tab(tmp_path)
    assert tab.hparams[0] == "lr"
    assert tab.metrics == ["test/forward/top1"]
    assert tab.rows["a/tensorboard/hparams"].metrics == {}
    assert tab.rows["a/tensorboard/hparams"].status == "STATUS_FAILURE"
    assert tab.rows["b/tensorboard/hparams"].metrics == {"test/forward/top1": (0.5, 6)}


def test_an_attempt_that_continues_a_run_replaces_its_row_and_keeps_its_scores(tmp_path: Path) -> None:
    config, row = started(tmp_path, "a")
    row.show(6, {"loss": 2.0})
    row.close(failed=False)
    (config.run_dir / "results").mkdir()
    results = {"split": "test", "step": 6, "metrics": [{**SCORE, "value": None, "metric": "loss"}, SCORE]}
    (config.run_dir / "results" / "results.json").write_text(json.dumps(results))
    _, again = started(tmp_path, "a", lr=3e-3)
    again.show(12, {"loss": 1.0})
    (found,) = hparams_tab(tmp_path).rows.values()
    assert found.hparams["lr"] == pytest.approx(3e-3)
    assert found.metrics == {"last/loss": (1.0, 12), "test/forward/top1": (0.5, 6)}
    assert found.status == "STATUS_UNKNOWN"  # it runs


def test_scores_that_cannot_be_written_are_said_and_cost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, tmp_path, "run")
    share_scores(config, tmp_path, {})
    assert not [*tmp_path.iterdir()]  # a run of an earlier version has no row

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("bigchem.train.logging.scores.add_scores", full)
    share_scores(config, tmp_path, {})
    assert "No space left on device" in capsys.readouterr().out
