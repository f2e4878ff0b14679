"""The worst-case batch, and offload, on two ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed import run_ranks
from engines import Training
from runs import config_of

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.step_plan import Plan, open_data
from bigchem.launch.rendezvous.extensions import load_cpu_adam
from bigchem.plan.memory.worst_case import longest_batch
from bigchem.train import worst_case

QUICK = [(2, "fp32"), (3, "bf16")]
THOROUGH = [(0, "fp32"), (1, "bf16")]
SLOW = [(0, "bf16"), (1, "fp32"), (2, "bf16"), (3, "fp32")]
"""ZeRO stages and precisions, by the launch that has them."""
OFFLOADS = ("zero2_offload", "zero3_offload")


def at(runs: Path, data: Path, ds_config: str, precision: str) -> RunConfig:
    train = {"ds_config": ds_config, "precision": precision}
    return config_of(runs, data, ds_config, train=train, model={"dropout": 0.0})


def _local(training: Training) -> list[torch.Tensor]:
    """This rank's weights and moments."""
    states = training.engine._optimizer.state.values()
    moments = [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]
    weights = [p.ds_tensor if training.engine.zero_stage == 3 else p for p in training.model.parameters()]
    return [tensor.detach().clone() for tensor in (*weights, *moments)]


def _worst(training: Training) -> bool:
    """Computes the worst case. Returns whether weights and moments are unchanged."""
    before = _local(training)
    lengths = longest_batch(training.loader.plan, training.config.data.micro_tokens)
    worst_case.compute(training.engine, training.config, lengths, training.model.shape)
    return all(torch.equal(a, b) for a, b in zip(before, _local(training), strict=True))


def _with_worst_case(training: Training) -> tuple[list[float], bool]:
    """Losses of a run that computes the worst case at the start and again in the middle, as after a resume."""
    same = _worst(training) and not training.engine.has_moments
    losses = training.run(2)
    same = same and training.engine.has_moments and _worst(training)
    return losses + training.run(1), same


def _runs_out(config: RunConfig) -> str:
    """The user's error for a full device."""
    training = Training(config)

    def forward(batch: object, seed: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    training.model.forward = forward  # type: ignore[method-assign,assignment]
    with pytest.raises(UserError) as error:
        _worst(training)
    return str(error.value)


def _measure(runs: Path, data: Path, kinds: list[tuple[int, str]], precisions: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage, precision in kinds:
        config = at(runs, data, f"zero{stage}", precision)
        training = Training(config)
        found[f"worst {stage} {precision}"] = (Training(config).run(3), *_with_worst_case(training))
    found["full"] = _runs_out(at(runs, data, "zero0", "fp32"))
    if precisions:
        load_cpu_adam()
    for name in OFFLOADS:
        for precision in precisions:
            found[f"{name} {precision}"] = Training(at(runs, data, name, precision)).run(3)
    return found


@pytest.fixture(scope="module")
def quick(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return dict(run_ranks(_measure, 2, tmp_path_factory.mktemp("worst"), small_data, QUICK, ())[0])


@pytest.fixture(scope="module")
def thorough(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return dict(run_ranks(_measure, 2, tmp_path_factory.mktemp("worst"), small_data, THOROUGH, ("fp32",))[0])


@pytest.fixture(scope="module")
def slow(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return dict(run_ranks(_measure, 2, tmp_path_factory.mktemp("worst"), small_data, SLOW, ("bf16",))[0])


@pytest.fixture
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    """From the launch that the mark asks for: a quick test does not start the others."""
    launch = next((name for name in ("slow", "thorough") if request.node.get_closest_marker(name)), "quick")
    made: dict[str, Any] = request.getfixturevalue(launch)
    return made


EVERY_KIND = [
    *QUICK,
    *(pytest.param(*kind, marks=pytest.mark.thorough) for kind in THOROUGH),
    *(pytest.param(*kind, marks=pytest.mark.slow) for kind in SLOW),
]


@pytest.mark.parametrize(("stage", "precision"), EVERY_KIND)
def test_the_worst_case_batch_changes_nothing(found: dict[str, Any], stage: int, precision: str) -> None:
    plain, with_worst, same = found[f"worst {stage} {precision}"]
    assert same
    assert with_worst == plain


@pytest.mark.parametrize("name", OFFLOADS)
@pytest.mark.parametrize(
    ("precision", "equal"),
    [
        pytest.param("fp32", 1e-5, marks=pytest.mark.thorough),
        pytest.param("bf16", 1e-2, marks=pytest.mark.slow),
    ],
)
def test_offloaded_states_give_the_loss_curve_of_the_stage(
    found: dict[str, Any], name: str, precision: str, equal: float
) -> None:
    expected = next(value[0] for key, value in found.items() if key.startswith("worst") and key.endswith(precision))
    assert found[f"{name} {precision}"] == pytest.approx(expected, rel=equal)


def test_the_batch_is_as_long_as_the_data_allows_and_fills_the_micro_batch(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, small_data, "batch")
    plan = Plan(open_data(config.data), config.data, 0)
    lengths = longest_batch(plan, 600)
    assert lengths.sum() == 600
    stored = np.concatenate(
        [rows.lengths(np.arange(rows.size), np.zeros(rows.size, dtype=np.int64)) for rows in plan.rows.values()]
    )
    assert lengths[0].tolist() == stored.max(axis=0).tolist()
    assert (lengths <= lengths[0]).all()


def test_running_out_of_memory_is_told_before_the_first_step_with_what_to_lower(quick: dict[str, Any]) -> None:
    assert "out of memory in the worst-case batch: 600 tokens" in quick["full"]
    assert "data.micro_tokens" in quick["full"]
    assert "train.checkpoint_activations = true" in quick["full"]


def test_what_cublas_says_without_memory_is_running_out_of_memory() -> None:
    assert worst_case.no_memory("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    assert worst_case.no_memory("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert not worst_case.no_memory("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED")


def test_the_line_says_tokens_seconds_peak_and_plan() -> None:
    lengths = np.full((16, 2), 512)
    line = worst_case.Peak(lengths, 1.23, int(31.2e9), int(79.1e9), int(29.8e9)).summary()
    assert line == "worst-case batch: 16,384 tokens (16 x 512+512) in 1.2 s, peak 31.2 GB of 79.1 GB (plan: 29.8 GB)"
