"""Runs on a real Slurm that something happens to: how they are watched, disrupted and compared."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from runs import config_of, losses
from waiting import until

from bigchem.config import RunConfig
from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.runs import history
from bigchem.launch.runs.status import run_status
from bigchem.launch.slurm.testbed.bed import Bed
from bigchem.train.logging import ledger

EVERY = 5
"""Steps between checkpoints."""


@dataclass(frozen=True)
class Survived:
    """A disruption. own_s: from it to the next step, without what Slurm let the job wait. lost: steps done twice."""

    what: str
    own_s: float
    slurm_s: float
    lost: int

    def __str__(self) -> str:
        took = f"training again after {self.own_s:.1f} s and Slurm's {self.slurm_s:.1f} s"
        return f"{self.what}: {took}, {self.lost} steps lost"


def run_of(small_data: Path, tmp_path: Path, name: str, steps: int = 40) -> RunConfig:
    """A run whose messages to people go into a file: see `messages`."""
    return config_of(
        *(tmp_path / "runs", small_data, name),
        notify={"command": ["sh", "-c", f"cat >>'{tmp_path}/told.jsonl'; echo >>'{tmp_path}/told.jsonl'"]},
        train={"steps": steps, "ledger": True},
        checkpoint={"every": EVERY, "keep": 2},
        data={"global_tokens": 3000},
    )


def messages(tmp_path: Path) -> list[tuple[str, str]]:
    """Event and state of each message that was sent."""
    file = tmp_path / "told.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    return [(row["event"], row["state"]) for row in rows]


def profile_of(**fields: Any) -> ClusterProfile:
    return ClusterProfile.model_validate({**load_profile("testbed").model_dump(), **fields})


def steps_of(config: RunConfig) -> list[tuple[int, float]]:
    """Number and time of each step that metrics.jsonl holds."""
    file = config.run_dir / "metrics.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.is_file() else []
    return [(row["step"], row["time"]) for row in rows]


def opened(config: RunConfig) -> dict[str, Any]:
    """The attempt that has begun and not ended."""
    try:
        row: dict[str, Any] = json.loads((config.run_dir / "attempt.json").read_text())
    except FileNotFoundError:
        return {"attempt": 0, "time": 0.0}
    return row


def trains(config: RunConfig, attempt: int, step: int) -> None:
    """Waits until the attempt of that number trains, and is past a step."""

    def true() -> bool:
        begun = opened(config)
        return begun["attempt"] == attempt and any(n >= step and t > begun["time"] for n, t in steps_of(config))

    until(true, f"attempt {attempt} does not train: {run_status(config.run_dir)}")


def rank_pid(config: RunConfig, rank: int) -> int | None:
    """The process of a rank; node and rank are in its environment."""
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
            if b"submitit.core._submit" not in words or f"{config.run_dir}/submitit/%j".encode() not in words:
                continue
            if words[0].endswith(b"srun"):  # it has the rank's words, and the batch script's SLURM_PROCID=0
                continue
            if f"SLURM_PROCID={rank}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:
            continue
    return None


def kill_rank(config: RunConfig, rank: int) -> None:
    until(lambda: rank_pid(config, rank), f"no process of rank {rank}")
    os.kill(int(rank_pid(config, rank) or 0), signal.SIGKILL)


def survived(bed: Bed, config: RunConfig, attempt: int, what: str, disrupt: Callable[[], object]) -> Survived:
    """Disrupts attempt number `attempt` in the middle, and waits until the next one trains."""
    newest = history.read(config.run_dir)
    begun = newest[-1].to_step if newest else 0
    trains(config, attempt, begun + EVERY + 3)
    at = time.time()
    disrupt()
    trains(config, attempt + 1, 1)
    row = history.read(config.run_dir)[-1]
    now = opened(config)
    again = next(t for _, t in steps_of(config) if t > now["time"])
    started = bed.call("squeue", "--noheader", "--format=%S", "--jobs", now["job"]).strip()
    slurm_s = max(0.0, time.mktime(time.strptime(started, "%Y-%m-%dT%H:%M:%S")) - (row.time + row.seconds))
    return Survived(what, again - at - slurm_s, slurm_s, row.to_step - now["from_step"])


def assert_same(config: RunConfig, calm: RunConfig) -> None:
    """Ledger and loss are those of the run that nothing happened to."""
    assert run_status(config.run_dir).state == "trained"
    assert ledger.read(config.run_dir) == ledger.read(calm.run_dir)
    assert losses(config) == pytest.approx(losses(calm), rel=1e-4)
