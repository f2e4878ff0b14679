"""Launches and host time of a training step's forward and backward passes: on a GPU a small step waits for them.

    python -m pytest -s tests/model/test_launches.py

prints the figures of docs/benchmarks.md.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

import meta_device

from bigchem.model import functional, linear
from bigchem.model.presets import PRESETS, Shape
from bigchem.plan.speed.step_time import KERNELS

BUDGET = {
    "t5-base": {"forward": 351, "backward": 798},
    "t5-v1_1-base": {"forward": 374, "backward": 868},
}
"""Launches of each pass."""
HOST_BUDGET = 18
"""Host time of both passes, in that of a bare chain of as many operations, forward and backward."""


def launches(preset: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], Counter[str]]:
    """Of the forward and the backward pass, by name; a micro-batch of 80 examples, dropout 0.1."""
    counting = meta_device.Launches(monkeypatch)
    model, random = meta_device.model(PRESETS[preset]), np.random.default_rng(0)
    batch = meta_device.batch(model, random.integers(20, 180, 80), random.integers(20, 180, 80))
    model(batch, seed=0).total.backward()  # makes what is made once and kept
    model.zero_grad(set_to_none=True)
    counting.count.clear()  # the stub's
    with counting:
        loss = model(batch, seed=1)
        forward = Counter(counting.count)
        (loss.total * 1e-4).backward()
    return forward, counting.count - forward


def host_times(monkeypatch: pytest.MonkeyPatch, turns: int = 9) -> tuple[float, float]:
    """Seconds of both passes, and their ratio to the bare chain's: medians of several turns, by processor time.

    T5-base's blocks with narrow tensors on the CPU, so that nearly all of it is Python, autograd and torch's dispatch.
    A stub stands for Triton's own code for a launch.
    """
    meta_device.Launches(monkeypatch)
    monkeypatch.setattr(functional, "KERNEL_DEVICES", {"cpu"})
    monkeypatch.setattr(linear, "_served", lambda a, b: False)
    cpu, base = torch.device("cpu"), PRESETS["t5-base"]
    narrow = Shape(64, 16, 4, 32, base.num_layers, base.num_decoder_layers, 4, gated=False, tied=True)
    model = meta_device.model(narrow, device=cpu).float()
    batch = meta_device.batch(model, np.array([20, 9, 12]), np.array([7, 20, 3]), cpu)
    factors = torch.ones(BUDGET["t5-base"]["forward"], 16, 16).unbind()

    def bare() -> torch.Tensor:
        x = torch.ones(16, 16, requires_grad=True)
        for factor in factors:
            x = x * factor
        return x.sum()

    def seconds(forward: Callable[[], torch.Tensor]) -> float:
        start = time.process_time()
        forward().backward()
        return time.process_time() - start

    times = [(seconds(lambda: model(batch, seed=1).total * 1e-4), seconds(bare)) for _ in range(turns)]
    return statistics.median(a for a, _ in times), statistics.median(a / b for a, b in times)


@pytest.mark.parametrize("preset", list(BUDGET))
def test_a_step_launches_no_more_kernels_than_its_budget(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that launches fewer lowers the budget."""
    passes = dict(zip(("forward", "backward"), launches(preset, monkeypatch), strict=True))
    for name, counts in passes.items():
        print(f"{preset} {name}: {counts.total()} launches, of which Triton's {counts['triton']}")
        assert counts.total() <= BUDGET[preset][name], counts.most_common()
        assert counts.total() > 0.97 * BUDGET[preset][name], "fewer: lower the budget"


@pytest.mark.parametrize("preset", list(BUDGET))
def test_the_plan_counts_these_launches(preset: str) -> None:
    shape = PRESETS[preset]
    planned = KERNELS[0] * shape.num_layers + KERNELS[1] * shape.num_decoder_layers
    assert planned == pytest.approx(sum(BUDGET[preset].values()), rel=0.1)


def test_a_step_takes_no_more_of_the_hosts_time_than_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, ratio = host_times(monkeypatch)
    print(f"host: {1e3 * seconds:.1f} ms, {ratio:.1f} times a bare chain's")
    assert ratio < HOST_BUDGET
