"""Optimizers under real engines on two ranks: rates, running mean, clipping, skipped steps, offload."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from distributed import run_ranks
from engines import Training, resumed
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import config_of
from torch import distributed as dist

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.ds_config import ds_config_for
from bigchem.train.checkpoint.slots import Slot
from bigchem.train.optimizer import SMALLEST_SCALE, AdamW, _own_piece, layout_of

STAGES = (0, 3)
"""Stages of the quick tests."""
DECAY = 0.9


def at(runs: Path, data: Path, stage: int, **sections: dict[str, Any]) -> RunConfig:
    train = {"ds_config": f"zero{stage}", **sections.pop("train", {})}
    return config_of(runs, data, f"zero{stage}", train=train, **sections)


def _means(runs: Path, data: Path, stage: int) -> dict[str, Any]:
    """The running mean over four steps, a reference computed beside it, and that of a run resumed after two."""
    config = at(runs, data, stage, optimizer={"ema": DECAY, "lr": 3e-3})
    training = Training(config)
    beside = training.weights()

    def follow() -> None:
        for name, weight in training.weights().items():
            beside[name].lerp_(weight, 1 - DECAY)

    losses = training.run(2, follow)
    again = resumed(config, runs / f"mean{stage}", training)
    losses += training.run(2, follow)
    means, losses_again = training.state("ema"), again.run(2)
    means_again = again.state("ema")
    return {
        "equal": all(torch.equal(means[n], beside[n]) for n in means),
        "moved": any(not torch.equal(means[n], w) for n, w in training.weights().items()),
        "resumed": all(torch.equal(means[n], means_again[n]) for n in means),
        "losses": losses,
        "losses resumed": losses_again,
    }


def _clipped(runs: Path, data: Path, stage: int) -> dict[str, Any]:
    """Losses under an active clip, with the norms before clipping."""
    training = Training(at(runs, data, stage, optimizer={"grad_clip": 0.05, "eps": 1e-3}))
    losses, norms = [], []
    for _ in range(3):
        losses.append(training.gradients())
        norms.append(training.move())
    return {"losses": losses, "norms": norms}


def _rms(runs: Path, data: Path, stage: int) -> dict[str, Any]:
    """The loss curve, and by parameter (RMS, largest update of a weight without its decay) at adamw_rms's first step.

    Adam's first step is the gradient's sign wherever that is not almost zero.
    """
    config = at(runs, data, stage, optimizer={"kind": "adamw_rms", "lr": 2e-2, "weight_decay": 0.1})
    training = Training(config)
    before = training.weights()
    losses = training.run(1)
    rate, moved = config.optimizer.lr / config.schedule.warmup_steps, {}
    for name, weight in training.weights().items():
        old = before[name]
        decayed = old.ndim == 2 and name != "shared.weight" and "relative_attention_bias" not in name
        move = weight - old + (rate * 0.1 * old if decayed else 0)
        moved[name] = float(old.square().mean().sqrt()), float(move.abs().max()) / rate
    return {"losses": losses + training.run(2), "moved": moved}


def _at_stages(runs: Path, data: Path, stages: tuple[int, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage in stages:
        for name, measure in (("mean", _means), ("clip", _clipped), ("rms", _rms)):
            found[f"{name}{stage}"] = measure(runs, data, stage)
    return found


def _everything(runs: Path, data: Path) -> dict[str, Any]:
    found = _at_stages(runs, data, STAGES)
    found["unclipped"] = Training(at(runs, data, 0, optimizer={"grad_clip": 0.0, "eps": 1e-3})).run(3)
    for precision in ("fp32", "bf16"):
        factored = {"kind": "adafactor", "lr": 1e-2, "ema": DECAY}
        training = Training(at(runs, data, 0, train={"precision": precision}, optimizer=factored))
        found[f"adafactor {precision}"] = training.run(6)
    return found


@pytest.fixture(scope="module")
def found(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    first, second = run_ranks(_everything, 2, tmp_path_factory.mktemp("optimizers"), small_data)
    assert first["mean3"]["losses"] == second["mean3"]["losses"]
    return dict(first)


@pytest.mark.parametrize("stage", STAGES)
def test_the_running_mean_is_that_of_the_weights_and_survives_resuming_bit_for_bit(
    found: dict[str, Any], stage: int
) -> None:
    check_mean(found[f"mean{stage}"])


def test_a_clip_that_bites_gives_every_stage_the_same_curve(found: dict[str, Any]) -> None:
    expected = found["clip0"]
    assert min(expected["norms"]) > 0.05
    assert expected["losses"] != pytest.approx(found["unclipped"], rel=1e-5)
    for stage in STAGES:
        check_clip(found[f"clip{stage}"], expected)


@pytest.mark.parametrize("stage", STAGES)
def test_adamw_rms_moves_each_parameter_by_its_size_and_decays_it_unscaled(found: dict[str, Any], stage: int) -> None:
    check_rms(found[f"rms{stage}"], found["rms0"])


@pytest.mark.parametrize(
    "stage", [pytest.param(2, marks=pytest.mark.thorough), pytest.param(1, marks=pytest.mark.slow)]
)
def test_the_other_stages_have_the_same_mean_clip_and_rates(
    found: dict[str, Any], small_data: Path, tmp_path: Path, stage: int
) -> None:
    there = run_ranks(_at_stages, 2, tmp_path, small_data, (stage,))[0]
    check_mean(there[f"mean{stage}"])
    check_clip(there[f"clip{stage}"], found["clip0"])
    check_rms(there[f"rms{stage}"], found["rms0"])


def check_mean(mean: dict[str, Any]) -> None:
    assert mean["equal"]
    assert mean["moved"]
    assert mean["resumed"]
    assert mean["losses"][2:] == mean["losses resumed"]


def check_clip(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    assert found["norms"] == pytest.approx(expected["norms"], rel=1e-4)


def check_rms(rms: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, (size, moved) in rms["moved"].items():
        assert moved == pytest.approx(max(SMALLEST_SCALE, size), rel=0.01), name
    assert rms["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    assert rms["losses"][-1] < rms["losses"][0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_adafactor_trains_where_it_gets_whole_matrices(found: dict[str, Any], precision: str) -> None:
    losses = found[f"adafactor {precision}"]
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3", "zero2_offload"])
def test_adafactor_is_refused_where_it_would_get_pieces(name: str) -> None:
    table = {"train": {"ds_config": name}, "optimizer": {"kind": "adafactor"}}
    with pytest.raises(UserError, match="needs whole matrices"):
        ds_config_for(RunConfig.model_validate(table), 2)


def test_adamw_rms_is_refused_where_the_weights_are_on_nvme() -> None:
    table = {"train": {"ds_config": "zero3_nvme"}, "optimizer": {"kind": "adamw_rms"}}
    with pytest.raises(UserError, match="on NVMe"):
        ds_config_for(RunConfig.model_validate(table), 2)


@given(st.integers(1, 20), st.integers(1, 5))
def test_a_rank_counts_its_own_elements_of_a_cut_parameter_and_no_padding(numel: int, world_size: int) -> None:
    whole, size = torch.arange(1.0, numel + 1), -(-numel // world_size)
    padded = torch.cat([whole, torch.full((size * world_size - numel,), -1.0)])
    pieces = []
    for rank in range(world_size):
        cut = SimpleNamespace(ds_tensor=padded[rank * size : (rank + 1) * size], ds_numel=numel)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dist, "get_rank", lambda rank=rank: rank)
            pieces.append(_own_piece(cut))
    assert torch.equal(torch.cat(pieces), whole)


def pieces_of(sizes: list[int], world_size: int) -> list[list[tuple[str, int, int, int]]]:
    """By rank, the (name, start, elements, offset) of parameters in its equal part of one flat tensor."""
    part = -(-sum(sizes) // world_size) + 1
    found: list[list[tuple[str, int, int, int]]] = [[] for _ in range(world_size)]
    begin = 0
    for i, size in enumerate(sizes):
        for rank in range(world_size):
            a, b = max(begin, rank * part), min(begin + size, (rank + 1) * part)
            if a < b:
                found[rank].append((str(i), a - begin, b - a, a - rank * part))
        begin += size
    return found


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    world_size=st.integers(1, 4),
    scales=st.lists(st.floats(1e-3, 10), min_size=6, max_size=6),
    seed=st.integers(0, 9),
)
@settings(max_examples=25)
def test_flat_pieces_are_stepped_as_torch_steps_a_group_for_each_parameter(
    sizes: list[int], world_size: int, scales: list[float], seed: int
) -> None:
    """The groups that a rate for each parameter took before: lr * scale, and decay / scale."""
    torch.manual_seed(seed)
    whole = [torch.randn(size, requires_grad=True) for size in sizes]
    groups = [{"params": [p], "lr": 1e-2 * s, "weight_decay": 0.1 / s} for p, s in zip(whole, scales, strict=False)]
    expected = torch.optim.AdamW(groups)
    ranks = pieces_of(sizes, world_size)
    part = -(-sum(sizes) // world_size) + 1
    flats = [torch.zeros(part, requires_grad=True) for _ in ranks]
    slots = [Slot(n, a, size, flat, at) for flat, own in zip(flats, ranks, strict=True) for n, a, size, at in own]
    steps = AdamW(flats, lr=1e-2, weight_decay=0.1)
    steps.layout, steps.scales = layout_of(slots), {str(i): s for i, s in enumerate(scales)}
    with torch.no_grad():
        for slot in slots:
            slot.flat[slot.offset : slot.offset + slot.numel] = whole[int(slot.name)][slot.start :][: slot.numel]
    for _ in range(4):
        for flat in flats:
            flat.grad = torch.zeros(part)
        for p in whole:
            p.grad = torch.randn(p.shape)
        for slot in slots:
            grad = whole[int(slot.name)].grad
            assert grad is not None
            assert slot.flat.grad is not None
            slot.flat.grad[slot.offset : slot.offset + slot.numel] = grad[slot.start :][: slot.numel]
        expected.step()
        steps.step()
    for slot in slots:
        found = slot.flat[slot.offset : slot.offset + slot.numel]
        torch.testing.assert_close(found, whole[int(slot.name)][slot.start :][: slot.numel], rtol=1e-5, atol=1e-6)
    assert len(steps.layout) == sum(map(bool, ranks))
    for flat, layout in steps.layout.items():
        assert sum(size for _, size in layout) == flat.numel()
        assert all(size for _, size in layout)
