"""Checkpoints written while training goes on: they are those of the moment of the save, whatever happens meanwhile."""

from __future__ import annotations

import io
import re
import threading
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from distributed import run_ranks
from engines import Training
from runs import config_of, losses, train_here
from torch import distributed as dist

from bigchem.config import RunConfig
from bigchem.data.loader import LoadedStep
from bigchem.plan.memory.states import staging_bytes
from bigchem.plan.memory.worst_case import setup_of
from bigchem.train.checkpoint.hashed_file import HashedFile
from bigchem.train.checkpoint.store import Manifest, published
from bigchem.train.engine import StepResult
from bigchem.train.loop import TrainingLoop
from bigchem.train.saving import SaveResult

Case = tuple[str, str]
"""(DeepSpeed configuration, precision)."""
FEW: list[Case] = [("zero0", "fp32"), ("zero2", "fp32"), ("zero3", "bf16")]
MANY: list[Case] = [("zero0", "bf16"), ("zero1", "bf16"), ("zero2", "bf16"), ("zero3", "fp32")]


def _both_ways(runs: Path, data: Path, cases: list[Case]) -> list[dict[str, Any]]:
    """This rank's files of one moment, written at once, and in the background by a disk that waits for the next step.
    With the memory that they took there, and the memory that was expected."""
    stepped, finish = threading.Event(), HashedFile.finish

    def finish_late(self: HashedFile) -> None:
        stepped.wait()
        finish(self)

    HashedFile.finish = finish_late  # type: ignore[method-assign]
    found = []
    for name, precision in cases:
        train = {"ds_config": name, "precision": precision}
        training = Training(config_of(runs, data, f"{name}-{precision}", train=train))
        training.run(1)
        engine, folder = training.engine, runs / f"{name}-{precision}"
        at_once = dict(engine.save(folder, "at-once").written)
        for tag in ("background", "again"):  # the second in the buffers of the first
            stepped.clear()
            files = engine.save(folder, tag, background=True)
            if tag == "again":
                training.run(1)
            waiting = files.writing
            stepped.set()
            files.finish()
            assert files.error is None
        setup = setup_of(training.config, engine.ds_config, 2, "cpu")
        found.append(
            {
                "case": (name, precision),
                "at once": {path.name: known for path, known in at_once.items()},
                "background": {path.name: known for path, known in files.written.items()},
                "not written before": waiting or not at_once,
                "bytes": sum(size for size, _ in at_once.values()),
                "expected": staging_bytes(training.model.shape, setup, engine.rank),
            }
        )
        engine.close()
    HashedFile.finish = finish  # type: ignore[method-assign]
    return found


@pytest.mark.parametrize(
    "cases", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.thorough)]
)
def test_files_written_after_the_next_step_are_byte_for_byte_those_written_at_once(
    small_data: Path, tmp_path: Path, cases: list[Case]
) -> None:
    for ranks in zip(*run_ranks(_both_ways, 2, tmp_path, small_data, cases), strict=True):
        for found in ranks:
            assert found["background"] == found["at once"], found["case"]
            assert found["not written before"], found["case"]
            assert found["bytes"] == pytest.approx(found["expected"], rel=0.05, abs=50_000), found["case"]


def _on_a_slow_disk(config: RunConfig) -> tuple[list[str], str]:
    """Trains with a stand-in for rank 1's disk, which writes nothing until step 5. What happened, in order, and the
    log."""
    awake, seen = threading.Event(), list[str]()
    finish, take, told = HashedFile.finish, TrainingLoop.take, TrainingLoop.settle

    def finish_late(self: HashedFile) -> None:
        if dist.get_rank() == 1:
            awake.wait()
        finish(self)

    def take_late(self: TrainingLoop, loaded: LoadedStep) -> StepResult:
        partial = [path.name for path in (config.run_dir / "checkpoints").glob("*.partial")]
        number = self.done.steps + 1
        seen.append(" ".join([f"step {number}", *partial]))
        if number == 5:
            awake.set()
            self.run.engine._files._finished.result()  # type: ignore[union-attr]
        return take(self, loaded)

    def settle(self: TrainingLoop, saved: SaveResult | None) -> None:
        seen.append("copied" if saved is None else f"published {saved.step}")
        told(self, saved)

    HashedFile.finish, TrainingLoop.take, TrainingLoop.settle = finish_late, take_late, settle  # type: ignore[method-assign]
    with redirect_stdout(io.StringIO()) as log:
        train_here(config)
    return seen, log.getvalue()


def test_training_goes_on_until_all_ranks_have_written_and_then_the_checkpoint_appears(
    small_data: Path, tmp_path: Path, trained: dict[int, RunConfig]
) -> None:
    config = config_of(tmp_path, small_data, "slow", checkpoint={"async_save": True})
    ranks = run_ranks(_on_a_slow_disk, 2, config)
    for seen, _ in ranks:
        written = [f"step {n} step_00000003.partial" for n in (4, 5)]
        assert seen == ["step 1", "step 2", "step 3", "copied", *written, "published 3", "step 6", "published 6"]
    assert losses(config) == losses(trained[2])
    for path in published(config.run_dir / "checkpoints"):
        manifest, at_once = (Manifest.read(p) for p in (path, trained[2].run_dir / "checkpoints" / path.name))
        assert manifest.files == at_once.files
        assert manifest.probe == at_once.probe
    log = ranks[0][1]
    assert log.count("checkpoints are written while training goes on, from ") == 1
    seconds = r"[0-9.]+ s"
    later = rf"copied in {seconds}, published after {seconds}; training paused for {seconds}\n"
    assert re.search(rf"checkpoint after step 3: [0-9.]+ .B, {later}", log)
    assert re.search(r"checkpoint after step 6: .*/s\); training paused for [0-9.]+ s\n", log)
