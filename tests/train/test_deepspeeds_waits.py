"""How often DeepSpeed makes the host wait for the device in a step: a budget that a change cannot exceed unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deepspeed_on_cuda import pretend
from distributed import run_ranks
from engines import Training
from runs import config_of

BUDGET = {("zero1", "bf16"): 0, ("zero2", "bf16"): 2, ("zero3", "bf16"): 3}
"""Waits in a step of two micro-batches, besides reading the gradients' norm. ZeRO-2 with overlap_comm waits once at the
end of each backward pass."""


def _waits(runs: Path, data: Path, cases: list[tuple[str, str]]) -> list[dict[str, int]]:
    counts, found = pretend(), []
    for ds_config, precision in cases:
        training = Training(config_of(runs, data, "waits", train={"ds_config": ds_config, "precision": precision}))
        training.run(3)  # the throughput timer starts at its third step
        counts.clear()
        training.run(1)
        found.append(dict(counts))
    return found


def zero2(folder: Path, name: str, more: dict[str, Any], **zero: Any) -> tuple[str, str]:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 2, "overlap_comm": True, **zero}, **more}))
    return str(path), "bf16"


@pytest.mark.thorough
def test_a_step_gains_no_wait_from_deepspeed(small_data: Path, tmp_path: Path) -> None:
    timer = zero2(tmp_path, "timer", {"timers": {"throughput": {"enabled": True}}})
    cases = [*BUDGET, zero2(tmp_path, "buckets", {}, reduce_bucket_size=30_000), timer]
    *found, buckets, timed = run_ranks(_waits, 2, tmp_path, small_data, cases)[0]
    for case, waits in zip(BUDGET, found, strict=True):
        assert sum(waits.values()) <= BUDGET[case], waits
    assert buckets == found[1]  # more buckets, no more waits
    assert sum(n for where, n in timed.items() if "timer.py" in where) >= 3
