from __future__ import annotations

import errno
import gzip
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hparams_tab import hparams_tab
from runs import config_of

from bigchem.base import toml
from bigchem.config import RunConfig
from bigchem.run.state import write_state
from bigchem.tasks import shipped
from bigchem.train.engine import StepLoss, StepResult
from bigchem.train.logging.schema import METRICS, field_of
from bigchem.train.logging.tensorboard import Board
from bigchem.train.logging.tracker import Tracker
from bigchem.train.saving import TrainingPosition

ROOT = Path(__file__).parents[3]
TASKS = tuple(shipped())
TAKEN = StepResult(StepLoss(torch.ones(len(TASKS)), torch.ones(len(TASKS)), TASKS), 1e-3, 1.0)
WANDB = Path(__file__).parents[1] / "stand_in_wandb.py"


def rows_of(config: RunConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("peak", [None, 4e12])
def test_mfu_is_told_where_the_peak_is_known(peak: float | None, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = config_of(tmp_path, tmp_path, "run")
    config.run_dir.mkdir()
    with Tracker(config, 0, enabled=True, peak_flops=peak) as tracker:
        tracker.count(tokens=100, capacity=120, flops=2e12, wait_s=0.0)
        tracker.log(TrainingPosition(1, 4, 100), TAKEN, None)
    (row,) = rows_of(config)
    if peak is None:
        assert "mfu" not in row
        assert "mfu" not in capsys.readouterr().out
    else:
        assert row["mfu"] == pytest.approx(row["tflops"] / 4)
        assert f"mfu {row['mfu']:.1%}" in capsys.readouterr().out


def test_time_spent_saving_is_told_apart_from_training_time(tmp_path: Path) -> None:
    config = config_of(tmp_path, tmp_path, "run", train={"log_every": 2})
    config.run_dir.mkdir()
    with Tracker(config, 0, enabled=True, peak_flops=None, training_s=10.0) as tracker:
        tracker._since -= 1 + 2 + 100 + 50  # two steps of 1 and 2 s, a checkpoint in between, and a profile
        for step in (1, 2):
            tracker.count(tokens=300, capacity=400, flops=1e12, wait_s=0.3)
            if step == 1:
                tracker.saved(100)
                tracker.paused(50)
            else:
                tracker.log(TrainingPosition(step, 4, 100), TAKEN, None)
        tracker._since -= 4
        assert tracker.state()["training_s"] == pytest.approx(17, abs=1)  # as stored in a checkpoint between two rows
    (row,) = rows_of(config)
    assert row["training_s"] == pytest.approx(13, abs=1)
    found = {name: row[name] for name in ("tokens_per_s", "step_s", "checkpoint_s", "valid_s", "data_wait", "fill")}
    expected = {"tokens_per_s": 200, "step_s": 1.5, "checkpoint_s": 100, "valid_s": 0, "data_wait": 0.2, "fill": 0.75}
    assert found == pytest.approx(expected, rel=0.1)


def test_an_error_makes_a_run_at_wandb_a_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(WANDB, tmp_path / "wandb.py")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    config = config_of(tmp_path, tmp_path, "run", train={"wandb": "project"})
    config.run_dir.mkdir()
    with pytest.raises(ValueError, match="wrong"), Tracker(config, 0, enabled=True, peak_flops=None):
        raise ValueError("wrong")
    assert (config.run_dir / "wandb.jsonl").read_text().splitlines()[-1] == '{"exit code": 1}'


def test_a_full_disk_costs_rows_of_metrics_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, tmp_path, "run")
    config.run_dir.mkdir()
    write_state(config.run_dir, "prepared")

    def full(*arguments: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Tracker(config, 0, enabled=True, peak_flops=None) as tracker:
        monkeypatch.setattr("bigchem.run.state.write_state", full)
        monkeypatch.setattr(Board, "show", full)
        (config.run_dir / "metrics.jsonl").unlink()
        (config.run_dir / "metrics.jsonl").symlink_to("/dev/full")
        for step in (1, 2):
            tracker.count(tokens=100, capacity=120, flops=2e12, wait_s=0.0)
            tracker.log(TrainingPosition(step, 4, 100), TAKEN, None)
            if step == 1:
                (config.run_dir / "metrics.jsonl").unlink()
    assert [row["step"] for row in rows_of(config)] == [1, 2]
    output = capsys.readouterr().out
    for what in ("run/metrics.jsonl", "state.json", "tensorboard/"):
        assert output.count(f"cannot write {what}: No space left on device; training continues") == 1


def test_the_schema_is_the_page_of_metrics() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    documented = re.findall(r"^\| `([^`]+)` \| (.+?) \| (.+?) \| (.+?) \|$", page, re.MULTILINE)
    assert documented == [
        (name, m.unit or "-", f"`{m.board}`" if m.board else "-", m.meaning) for name, m in METRICS.items()
    ]


@pytest.fixture(scope="module")
def on_a_terminal(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, str]:
    """`bigchem train --profile 2:2` in a pseudo-terminal, with everything it printed there."""
    folder = tmp_path_factory.mktemp("terminal")
    shutil.copy(WANDB, folder / "wandb.py")
    config = config_of(
        folder / "runs",
        small_data,
        "run",
        train={"steps": 4, "wandb": "project", "log_every": 2},
        validation={"every": 4, "split": "test", "max_rows": 8, "samples": 1},
    )
    (folder / "run.toml").write_text(toml.dump(config))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "bigchem", "train", str(folder / "run.toml"), "--profile", "2:2"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment, cwd=folder) as process:
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
    os.close(ours)
    assert process.returncode == 0, seen.decode()
    return config, seen.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other side is closed
        return b""


def test_a_terminal_has_a_live_line_and_the_log_plain_ones(on_a_terminal: tuple[RunConfig, str]) -> None:
    config, seen = on_a_terminal
    log = (config.run_dir / "logs" / "rank0.log").read_text()
    assert "\x1b" not in log
    lines = [line.split()[1] for line in log.splitlines() if line.startswith("step ")]
    assert lines == ["1/4", "2/4", "4/4"]
    assert len([line for line in log.splitlines() if line.startswith("checkpoint after step ")]) == 2
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen).replace("\r", "\n")
    assert "\x1b[2K" in seen  # the live line is erased and drawn again
    assert re.search(r"step 1/4 .*loss \d\.\d{4}  [\d,]+ tokens/s  eta 0:00:\d\d", plain)
    assert "checkpoint after step 3" in plain  # printed above the live line
    assert not [line for line in plain.splitlines() if re.match(r"step 2/4  loss .* lr ", line)]
    assert re.search(r"^step 4/4  loss \d\.\d{4}  lr ", plain, re.MULTILINE)  # the last stays


def test_a_profile_holds_the_steps_asked_for(on_a_terminal: tuple[RunConfig, str]) -> None:
    config, seen = on_a_terminal
    folder = config.run_dir / "profile" / "step_2_2"
    assert sorted(p.name for p in folder.iterdir()) == ["memory.txt", "trace.json.gz"]
    events = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))["traceEvents"]
    steps = [event for event in events if "Optimizer.step" in str(event.get("name"))]
    assert len(steps) == 2  # one step: ZeRO steps each parameter group separately
    assert "aten::bmm" in (folder / "memory.txt").read_text()
    assert "profile of steps 2 to 2: " in seen


def test_every_key_of_a_row_is_in_the_schema_and_the_other_way_round(on_a_terminal: tuple[RunConfig, str]) -> None:
    rows = rows_of(on_a_terminal[0])
    assert [row["step"] for row in rows] == [1, 2, 4]
    written = {field_of(name) for row in rows for name in row}
    assert written == METRICS.keys() - {"mfu"}  # the peak of a CPU is unknown; see above
    assert rows[1]["memory"] > 50e6
    assert [("valid_loss" in row, row["valid_s"] > 0) for row in rows] == [(False, False), (False, False), (True, True)]
    assert rows[2]["checkpoint_s"] > 0


def test_tensorboard_has_groups_samples_and_hyperparameters(on_a_terminal: tuple[RunConfig, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(on_a_terminal[0].run_dir / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    groups = {tag.split("/")[0] for tag in tags["scalars"]}
    assert groups == {"loss", "throughput", "memory", "optimizer", "data", "validation"}
    assert [(s.step, s.value) for s in events.Scalars("validation/loss")] == [
        (4, pytest.approx(rows_of(on_a_terminal[0])[2]["valid_loss"]))
    ]
    assert {f"samples/{task}/text_summary" for task in on_a_terminal[0].data.mixture} <= set(tags["tensors"])
    assert "configuration/text_summary" in tags["tensors"]
    (row,) = hparams_tab(on_a_terminal[0].run_dir / "tensorboard").rows.values()
    assert row.hparams["lr"] == 1e-3
    assert row.hparams["parameters"] > row.hparams["non_embedding_parameters"] > 0
    assert [row.metrics[name][1] for name in ("last/loss", "last/validation_loss")] == [4, 4]


def test_wandb_gets_the_same_values_under_the_same_names(on_a_terminal: tuple[RunConfig, str]) -> None:
    config, _ = on_a_terminal
    first, *between, last = [json.loads(line) for line in (config.run_dir / "wandb.jsonl").read_text().splitlines()]
    known = (config.run_dir / "wandb_id").read_text()
    assert first == {"project": "project", "name": "run", "id": known, "resume": "allow", "lr": 1e-3}
    assert last == {"exit code": 0}
    logged, referred = ([x for x in between if ("artifact" in x) == kind] for kind in (False, True))
    assert [(x["step"], x["loss/all"], x.get("validation/loss")) for x in logged] == [
        (x["step"], x["loss"], x.get("valid_loss")) for x in rows_of(config)
    ]
    checkpoints = sorted((config.run_dir / "checkpoints").glob("step_*"))
    assert [(x["uri"], x["checksum"]) for x in referred] == [(folder.as_uri(), False) for folder in checkpoints]
