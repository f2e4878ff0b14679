"""A run resumes at any number of ranks and any ZeRO stage as if it had not been interrupted."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed import run_ranks
from engines import Training, resumed
from runs import at_step, config_of, losses, train_all

from bigchem.config import RunConfig
from bigchem.train import optimizer
from bigchem.train.checkpoint.store import Manifest, step_name
from bigchem.train.checkpoint.zero_layout import ZeroFiles

Shape = tuple[int, int]
"""(ZeRO stage, ranks)."""
SHAPES = list(product((0, 1, 2, 3), (1, 2, 3)))
FEW = [((2, 2), (3, 1)), ((3, 2), (0, 3))]
SOME = [((2, 2), (2, 3)), ((0, 1), (2, 2)), ((1, 3), (1, 2)), ((3, 2), (3, 1))]
ALL = [(a, b) for a, b in product(SHAPES, SHAPES) if a != b]


def converted(
    pairs: list[tuple[Shape, Shape]], trained: dict[int, RunConfig], data: Path, tmp_path: Path
) -> dict[tuple[Shape, Shape], list[float]]:
    """Loss curves of runs that change shape after half of their steps."""
    whole: dict[Shape, RunConfig] = {(stage, 2): config for stage, config in trained.items()}
    curves: dict[tuple[Shape, Shape], list[float]] = {}
    for ranks in (1, 3, 2, 1, 3):  # the fewest process starts possible
        needed = sorted({a for a, _ in pairs if a[1] == ranks} - whole.keys())
        new = {a: config_of(tmp_path, data, f"{a[0]}-{ranks}", train={"ds_config": f"zero{a[0]}"}) for a in needed}
        resumed = {
            (a, b): at_step(whole[a], 3, tmp_path, f"{a[0]}-{a[1]}-to-{b[0]}-{b[1]}", ds_config=f"zero{b[0]}")
            for a, b in pairs
            if b[1] == ranks and a in whole and (a, b) not in curves
        }
        if new or resumed:
            run_ranks(train_all, ranks, [*new.values(), *resumed.values()], timeout=900)
        whole |= new
        for pair, config in resumed.items():
            curves[pair] = losses(config)
            middle, last = (Manifest.read(config.run_dir / "checkpoints" / step_name(n)) for n in (3, 6))
            assert ((middle.zero_stage, middle.world_size), (last.zero_stage, last.world_size)) == pair
    assert curves.keys() == set(pairs)
    return curves


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(FEW, id="few"),
        pytest.param(SOME, id="some", marks=pytest.mark.thorough),
        pytest.param(ALL, id="all", marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_in_another_shape(
    trained: dict[int, RunConfig], small_data: Path, tmp_path: Path, pairs: list[tuple[Shape, Shape]]
) -> None:
    expected = losses(trained[0])
    for pair, curve in converted(pairs, trained, small_data, tmp_path).items():
        assert curve == pytest.approx(expected, rel=1e-5), pair


Chain = tuple[tuple[int, str], ...]
"""(stage, precision) of engines, each loading the previous one's checkpoint."""
CHAIN: Chain = ((1, "bf16"), (3, "bf16"), (2, "fp32"))
LONG: Chain = ((1, "bf16"), (3, "bf16"), (1, "bf16"), (3, "fp32"), (2, "fp32"))


def _taken_over(runs: Path, data: Path, chain: Chain) -> list[dict[str, bool]]:
    """Whether masters, moments, step counts and DeepSpeed's counters are the same, bit for bit, in every engine."""
    found: list[dict[str, bool]] = []
    last: Training | None = None
    for i, (stage, precision) in enumerate(chain):
        config = config_of(runs, data, f"chain{i}", train={"ds_config": f"zero{stage}", "precision": precision})
        if last is None:
            last = Training(config)
            last.run(2)
            continue
        now = resumed(config, runs / f"chain{i}", last)
        before, after = known_of(last), known_of(now)
        found.append({key: same(before[key], after[key]) for key in before})
        now.run(1)
        last = now
    return found


def known_of(training: Training) -> dict[str, Any]:
    """Everything that resharding preserves."""
    engine, states = training.engine._engine, training.engine._optimizer.state.values()
    counters = {key: getattr(engine, key) for key in ("global_steps", "global_samples", "skipped_steps")}
    moments = {key: training.state(key) for key in ("exp_avg", "exp_avg_sq")}
    return {
        "fp32": training.weights(),
        **moments,
        **counters,
        "step": {float(s["step"]) for s in states if "step" in s},
    }


def same(a: Any, b: Any) -> bool:
    if not isinstance(a, dict):
        return bool(a == b and a is not None)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "chain", [pytest.param(CHAIN, id="short"), pytest.param(LONG, id="long", marks=pytest.mark.thorough)]
)
def test_an_engine_takes_over_every_element_from_one_of_another_stage(
    small_data: Path, tmp_path: Path, chain: Chain
) -> None:
    """On three ranks most pieces are padded, as few sizes are divisible by three."""
    for rank in run_ranks(_taken_over, 3, tmp_path, small_data, chain):
        assert len(rank) == len(chain) - 1
        for pair, found in zip(pairwise(chain), rank, strict=True):
            assert all(found.values()), (pair, found)


@pytest.mark.slow
def test_precision_and_shape_may_change_together(small_data: Path, tmp_path: Path) -> None:
    """bf16 rounds, and differently for another order of sums. Lost state would shift the loss by far more."""
    bf16 = [
        config_of(tmp_path, small_data, f"bf16-{n}", train={"precision": "bf16", "ds_config": f"zero{n}"})
        for n in (0, 1, 2, 3)
    ]
    run_ranks(train_all, 2, bf16)
    resumed = [
        at_step(whole, 3, tmp_path, f"{whole.name}-{ds_config}-{precision}", ds_config=ds_config, precision=precision)
        for whole in bf16
        for ds_config, precision in (
            ("zero2", "bf16"),
            ("zero3", "bf16"),
            ("zero0", "bf16"),
            ("zero1", "bf16"),
            ("zero1", "fp32"),
        )
    ]
    run_ranks(train_all, 1, resumed)
    for config in resumed:
        whole = bf16[int(config.name[len("bf16-")])]
        assert losses(config) == pytest.approx(losses(whole), rel=2e-3)
        assert losses(config)[3:] != pytest.approx(losses(whole)[:3], rel=2e-3)


def _from_other_groups(runs: Path, data: Path, stage: int, precision: str) -> dict[str, bool]:
    """What an engine takes over from a checkpoint with a group for each parameter, as bigchem once saved for
    adamw_rms."""
    train = {"ds_config": f"zero{stage}", "precision": precision}
    config = config_of(runs, data, "groups", train=train, optimizer={"kind": "adamw_rms", "lr": 2e-2})
    grouped = optimizer.parameter_groups
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizer, "parameter_groups", lambda *args: one_by_one(grouped(*args)))
        old = Training(config)
    old.run(2)
    before = known_of(old)
    new = resumed(config, runs / "groups", old)
    groups = [len(training.engine._optimizer.param_groups) for training in (old, new)]
    after = known_of(new)
    same_loss = old.gradients() == pytest.approx(new.gradients(), rel=1e-6)
    return {**{key: same(before[key], after[key]) for key in before}, "loss": same_loss, "groups": groups == [68, 2]}


def one_by_one(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**group, "params": [parameter]} for group in groups for parameter in group["params"]]


@pytest.mark.parametrize(
    ("stage", "precision"),
    [
        (2, "fp32"),
        *(pytest.param(s, p, marks=pytest.mark.thorough) for s, p in ((0, "fp32"), (1, "bf16"), (3, "bf16"))),
    ],
)
def test_a_checkpoint_with_other_groups_is_read_by_name(
    small_data: Path, tmp_path: Path, stage: int, precision: str
) -> None:
    found = run_ranks(_from_other_groups, 2, tmp_path, small_data, stage, precision)[0]
    assert all(found.values()), found


@pytest.mark.slow
def test_scaled_rates_and_a_running_mean_go_along(small_data: Path, tmp_path: Path) -> None:
    """ema is a state created by the first step."""
    rms = {"optimizer": {"kind": "adamw_rms", "lr": 2e-2, "ema": 0.9}}
    wholes = [config_of(tmp_path, small_data, f"rms-{n}", train={"ds_config": f"zero{n}"}, **rms) for n in (0, 2, 3)]
    run_ranks(train_all, 2, wholes)
    resumed = {
        whole.name: [at_step(whole, 3, tmp_path, f"{whole.name}-{n}", ds_config=f"zero{n}") for n in (0, 1, 3)]
        for whole in wholes
    }
    run_ranks(train_all, 1, [config for configs in resumed.values() for config in configs])
    for whole in wholes:
        expected = means(whole)
        for config in resumed[whole.name]:
            assert losses(config) == pytest.approx(losses(whole), rel=1e-5)
            for name, mean in means(config).items():
                torch.testing.assert_close(mean, expected[name], rtol=1e-4, atol=1e-6)


def means(config: RunConfig) -> dict[str, torch.Tensor]:
    """Running mean of every weight after the last step."""
    checkpoint = config.run_dir / "checkpoints" / step_name(6)
    files = ZeroFiles(checkpoint, Manifest.read(checkpoint))
    assert files.keys == {"exp_avg", "exp_avg_sq", "ema"}
    return {name: files.full(name, "ema") for name in files.shapes}


@pytest.mark.slow
def test_offloaded_states_come_back_to_the_device(small_data: Path, tmp_path: Path) -> None:
    whole = config_of(tmp_path, small_data, "offloaded", train={"ds_config": "zero2_offload"})
    run_ranks(train_all, 2, [whole])
    resumed = [at_step(whole, 3, tmp_path, name, ds_config=name) for name in ("zero2", "zero3_offload", "zero0")]
    run_ranks(train_all, 1, resumed)
    for config in resumed:
        assert losses(config) == pytest.approx(losses(whole), rel=1e-5)
