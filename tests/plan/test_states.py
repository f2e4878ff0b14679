"""The plan's states to the byte: against the tensors that DeepSpeed holds on one, two and three ranks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import run_ranks
from engines import Training
from hypothesis import given
from hypothesis import strategies as st
from runs import config_of
from small_models import V1_1, build

from bigchem.launch.extensions import load_cpu_adam
from bigchem.model.parameters import parameter_shapes
from bigchem.model.presets import PRESETS, num_parameters
from bigchem.plan.setup import Setup
from bigchem.plan.states import States, pieces, states
from bigchem.plan.worst import setup_of
from bigchem.train.held import held

KINDS = [
    *(("zero0", "bf16"), ("zero1", "bf16"), ("zero2", "bf16"), ("zero3", "bf16"), ("zero2", "fp32")),
    *(("zero2_offload", "bf16"), ("zero3_offload", "bf16")),
    *(("zero0", "fp32"), ("zero1", "fp32"), ("zero3", "fp32"), ("zero2_offload", "fp32"), ("zero3_offload", "fp32")),
]
QUICK = 7
"""Of the kinds, in the quick tests, on three ranks; all others, and one and two ranks, in the slow ones."""


def look(data: Path, runs: Path, kinds: list[tuple[str, str]], sections: dict[str, Any]) -> list[tuple[States, States]]:
    """What each kind of engine holds amid its second step, and what the plan says."""
    load_cpu_adam()
    found = []
    for name, precision in kinds:
        train = {"ds_config": name, "precision": precision}
        training = Training(config_of(runs, data, name, train=train, model={"dropout": 0.0}, **sections))
        training.run(1)
        step = training.loader.plan.steps.at(training.position)
        training.engine.accumulate(training.loader.load(step).micro_batches[0])
        setup = setup_of(training.config, training.engine.ds_config, training.engine.world_size, "cpu")
        device, host = states(training.model.shape, setup, training.engine.rank)
        found.append((held(training.engine), States(*(a + b for a, b in zip(device, host, strict=True)))))
    return found


@pytest.fixture(scope="module")
def three_ranks(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[tuple[States, States]]]:
    return run_ranks(look, 3, small_data, tmp_path_factory.mktemp("states"), KINDS[:QUICK], {})


@pytest.mark.parametrize("kind", range(QUICK), ids=[" ".join(kind) for kind in KINDS[:QUICK]])
def test_the_states_of_each_of_three_ranks_are_those_that_deepspeed_holds(
    three_ranks: list[list[tuple[States, States]]], kind: int
) -> None:
    for of_rank in three_ranks:
        seen, told = of_rank[kind]
        assert told == seen


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("optimizer", [{"kind": "adamw"}, {"kind": "adamw", "ema": 0.9}, {"kind": "adamw_rms"}])
def test_every_stage_precision_and_optimizer(
    small_data: Path, tmp_path: Path, ranks: int, optimizer: dict[str, Any]
) -> None:
    for of_rank in run_ranks(look, ranks, small_data, tmp_path, KINDS, {"optimizer": optimizer}):
        for kind, (seen, told) in zip(KINDS, of_rank, strict=True):
            assert told == seen, kind


def test_names_and_shapes_are_those_of_the_model_in_its_order() -> None:
    for shape in (V1_1, replace(V1_1, gated=False, tied=True, num_decoder_layers=3)):
        made = [(name, tuple(p.shape)) for name, p in build(shape).named_parameters()]
        assert list(parameter_shapes(shape).items()) == made


@pytest.mark.parametrize("preset", list(PRESETS))
def test_each_parameter_is_counted_once(preset: str) -> None:
    shape = PRESETS[preset]
    assert sum(pieces(shape, Setup(zero={"stage": 0}))) == num_parameters(shape)


@given(
    stage=st.integers(0, 3),
    ranks=st.integers(1, 64),
    precision=st.sampled_from(["fp32", "bf16"]),
    ema=st.booleans(),
    optimizer=st.sampled_from(["adamw", "adamw_rms"]),
)
def test_more_ranks_and_higher_stages_never_hold_more_but_for_padding(
    stage: int, ranks: int, precision: str, ema: bool, optimizer: str
) -> None:
    """Padding: less than 2 * ranks elements a group, 24 bytes each at most."""
    shape = PRESETS["t5-base"]
    setup = Setup(zero={"stage": stage}, world_size=ranks, precision=precision, ema=ema, optimizer=optimizer)
    padding = 24 * 2 * (ranks + 1) * (len(parameter_shapes(shape)) if optimizer == "adamw_rms" or stage == 3 else 2)
    now = sum(states(shape, setup)[0])
    assert sum(states(shape, replace(setup, world_size=ranks + 1))[0]) <= now + padding
    if 0 < stage < 3:
        padding = 24 * 2 * ranks * len(parameter_shapes(shape))
        assert sum(states(shape, replace(setup, zero={"stage": stage + 1}))[0]) <= now + padding


@pytest.mark.parametrize(("stage", "per_parameter"), [(0, 16), (1, 8 + 12 / 8), (2, 2 + 16 / 8), (3, 18 / 8)])
def test_bf16_states_are_those_of_the_table_in_ds_configs(stage: int, per_parameter: float) -> None:
    shape = PRESETS["t5-base"]
    device, host = states(shape, Setup(zero={"stage": stage}, world_size=8))
    assert sum(device) / num_parameters(shape) == pytest.approx(per_parameter, rel=1e-5)
    assert sum(host) == 0
