"""The plan's states, to the byte, and traffic, to the element, against DeepSpeed on one to three ranks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.comm.torch import TorchBackend
from distributed import run_ranks
from engines import Training
from hypothesis import given
from hypothesis import strategies as st
from runs import config_of
from small_models import V1_1, build

from bigchem.launch.rendezvous.extensions import load_cpu_adam
from bigchem.model.parameters import parameter_shapes
from bigchem.model.presets import PRESETS, num_parameters
from bigchem.plan.memory.buffers import gathered
from bigchem.plan.memory.setup import MemorySetup
from bigchem.plan.memory.states import States, pieces, states
from bigchem.plan.memory.worst_case import setup_of
from bigchem.plan.speed.step_time import Traffic, traffic
from bigchem.train.calibrate import measured_states

KINDS = [
    *(("zero2", "bf16"), ("zero3", "bf16"), ("zero2_offload", "bf16"), ("zero0", "bf16"), ("zero1", "bf16")),
    *(("zero0", "fp32"), ("zero1", "fp32"), ("zero2", "fp32"), ("zero3", "fp32"), ("zero2_offload", "fp32")),
    *(("zero3_offload", "bf16"), ("zero3_offload", "fp32")),
]
QUICK = 2
"""Kinds in the quick tests, on two ranks; the slow ones have all, on one to three."""
FEW = 64
"""Elements of flags, norms and counts that a step reduces as well."""


@dataclass
class Measurement:
    """An engine's states in the middle of a step and its collectives in one, measured and planned."""

    measured: States
    planned: States
    sent: Counter[str]
    traffic: Traffic
    most_gathered: int
    gathered: int


def measure(data: Path, runs: Path, kinds: list[tuple[str, str]], sections: dict[str, Any]) -> list[Measurement]:
    if any("offload" in name or name.endswith(".json") for name, _ in kinds):
        load_cpu_adam()  # which a new environment compiles for a minute
    found = []
    for name, precision in kinds:
        train = {**sections.get("train", {}), "ds_config": name, "precision": precision}
        training = Training(config_of(runs, data, "look", **{**sections, "train": train}))
        training.run(1)
        step = training.loader.plan.steps.at(training.position)
        loaded = training.loader.load(step)
        with collectives() as sent, most_elements(training) as most:
            training.run(1)
        training.engine.accumulate(loaded.micro_batches[0])
        setup = setup_of(training.config, training.engine.ds_config, training.engine.world_size, "cpu")
        shape = training.model.shape
        device, host = states(shape, setup, training.engine.rank)
        planned = States(*(a + b for a, b in zip(device, host, strict=True)))
        moved = traffic(shape, setup, len(loaded.micro_batches))
        found.append(
            Measurement(measured_states(training.engine), planned, sent, moved, most[0], gathered(shape, setup))
        )
    return found


@contextmanager
def collectives() -> Iterator[Counter[str]]:
    """Elements that DeepSpeed passes to torch, by collective: whole, not a rank's part."""
    sent: Counter[str] = Counter()
    names = ("all_reduce", "reduce", "all_gather_into_tensor", "reduce_scatter_tensor")
    kept = {name: getattr(TorchBackend, name) for name in names}

    def counted(name: str) -> Callable[..., Any]:
        def call(self: TorchBackend, *args: Any, **options: Any) -> Any:
            sent[name] += max(t.numel() for t in (*args, *options.values()) if isinstance(t, torch.Tensor))
            return kept[name](self, *args, **options)

        return call

    for name in names:
        setattr(TorchBackend, name, counted(name))
    try:
        yield sent
    finally:
        for name, function in kept.items():
            setattr(TorchBackend, name, function)


@contextmanager
def most_elements(training: Training) -> Iterator[list[int]]:
    """Maximum elements of weights present at the end of a module's forward pass."""
    most = [0]

    def see(*_: Any) -> None:
        most[0] = max(most[0], sum(p.data.numel() for p in training.model.parameters()))

    hooks = [module.register_forward_hook(see) for module in training.model.modules()]
    try:
        yield most
    finally:
        for hook in hooks:
            hook.remove()


@pytest.fixture(scope="module")
def two_ranks(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[Measurement]]:
    return run_ranks(measure, 2, small_data, tmp_path_factory.mktemp("states"), KINDS[:QUICK], {})


OF_KINDS = pytest.mark.parametrize("kind", range(QUICK), ids=[" ".join(kind) for kind in KINDS[:QUICK]])


@OF_KINDS
def test_the_states_of_each_of_two_ranks_are_those_that_deepspeed_holds(
    two_ranks: list[list[Measurement]], kind: int
) -> None:
    for of_rank in two_ranks:
        assert of_rank[kind].planned == of_rank[kind].measured


@OF_KINDS
def test_what_is_sent_is_what_deepspeed_hands_to_collectives(two_ranks: list[list[Measurement]], kind: int) -> None:
    check_traffic(two_ranks[0][kind])


def check_traffic(found: Measurement) -> None:
    planned, sent = found.traffic, found.sent
    assert planned.all_reduced <= sent["all_reduce"] <= planned.all_reduced + FEW
    assert planned.gathered <= sent["all_gather_into_tensor"] <= 1.01 * planned.gathered  # and padding
    assert sent["reduce_scatter_tensor"] == planned.reduce_scattered
    assert sent["reduce"] == planned.reduced


def of_tables(folder: Path, tables: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    """Kinds of (precision, DeepSpeed file)."""
    kinds = []
    for number, (precision, table) in enumerate(tables):
        path = folder / f"table-{number}.json"
        path.write_text(json.dumps(table))
        kinds.append((str(path), precision))
    return kinds


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "group"), [(2, 2), (4, 2)])
def test_hpzs_second_copy_and_what_is_gathered_for_it(small_data: Path, tmp_path: Path, ranks: int, group: int) -> None:
    """Weights that stay whole have no second copy: none of them, the smallest, all, or those within a limit."""
    hpz = {"stage": 3, "zero_hpz_partition_size": group, "reduce_bucket_size": 5e4}
    limits = [{"param": 0}, {"param": 1000}, {"param": 100_000}, {"param": 3000, "model": 10_000}]
    zeros: list[dict[str, Any]] = [
        {**hpz, **{f"stage3_{k}_persistence_threshold": v for k, v in limit.items()}} for limit in limits
    ]
    off = {"offload_param": {"device": "cpu"}, "offload_optimizer": {"device": "cpu"}}
    zeros += [{**zeros[0], "stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": 0}, {**zeros[0], **off}]
    tables = [(precision, {"zero_optimization": zero}) for zero in zeros for precision in ("bf16", "fp32")]
    found = run_ranks(measure, ranks, small_data, tmp_path, of_tables(tmp_path, tables), {})
    for of_rank in found:
        for table, one in zip(tables, of_rank, strict=True):
            assert one.planned == one.measured, table
            check_traffic(one)
    copies = [one.measured.hpz_weights for one in found[0][::2]]
    assert copies[0] == copies[4] > copies[1] > copies[3] > copies[2] == 0


@pytest.mark.slow
def test_types_that_gradients_are_added_up_and_sent_in(small_data: Path, tmp_path: Path) -> None:
    off = {"offload_optimizer": {"device": "cpu"}}
    zeros = [{"stage": stage, **more} for stage in (1, 2, 3) for more in ({}, off)]
    tables = [
        (precision, {"zero_optimization": zero, "data_types": {"grad_accum_dtype": summed}})
        for zero in zeros
        for precision, summed in (("bf16", "bf16"), ("bf16", "fp32"), ("fp32", "bf16"))
    ]
    plain = {"use_multi_rank_bucket_allreduce": False}
    tables += [("fp32", {"zero_optimization": {"stage": stage, **plain}}) for stage in (1, 2)]
    tables += [("bf16", {"zero_optimization": {"stage": stage}, "communication_data_type": "fp32"}) for stage in (2, 3)]
    for of_rank in run_ranks(measure, 2, small_data, tmp_path, of_tables(tmp_path, tables), {}):
        for table, one in zip(tables, of_rank, strict=True):
            assert one.planned == one.measured, table
            check_traffic(one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "optimizer"),
    [
        *((1, {"kind": "adamw"}), (2, {"kind": "adamw"}), (3, {"kind": "adamw"})),
        *((3, {"kind": "adamw", "ema": 0.9}), (3, {"kind": "adamw_rms"})),
    ],
)
def test_every_stage_precision_and_optimizer(
    small_data: Path, tmp_path: Path, ranks: int, optimizer: dict[str, Any]
) -> None:
    for of_rank in run_ranks(measure, ranks, small_data, tmp_path, KINDS, {"optimizer": optimizer}):
        for kind, found in zip(KINDS, of_rank, strict=True):
            assert found.planned == found.measured, kind
            if ranks == 3 and kind in KINDS[:5] and optimizer == {"kind": "adamw"}:
                check_traffic(found)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", [False, True])
def test_stage_3_gathers_no_more_than_the_plan_says(small_data: Path, tmp_path: Path, checkpointed: bool) -> None:
    """The whole model with unlimited prefetching; else what the limit and the reuse distance allow."""
    cases = [(1_000_000_000, 20_000, 1_000_000_000), (0, 0, 1_000_000_000), (100_000, 0, 0), (0, 2_000, 60_000)]
    kinds = []
    for reuse, ahead, live in cases:
        table = {"stage": 3, "overlap_comm": True, "reduce_bucket_size": 50_000, "stage3_prefetch_bucket_size": ahead}
        table |= {"stage3_max_reuse_distance": reuse, "stage3_max_live_parameters": live}
        path = tmp_path / f"{reuse}_{ahead}_{live}.json"
        path.write_text(json.dumps({"zero_optimization": {**table, "stage3_param_persistence_threshold": 1000}}))
        kinds.append((str(path), "bf16"))
    sections = {"train": {"checkpoint_activations": checkpointed}}
    for found in run_ranks(measure, 2, small_data, tmp_path, kinds, sections)[0]:
        assert 0.6 * found.gathered < found.most_gathered <= found.gathered
        planned = found.traffic
        assert 0.5 * planned.gathered < found.sent["all_gather_into_tensor"] <= 1.01 * planned.gathered
        assert found.sent["reduce_scatter_tensor"] == planned.reduce_scattered


def test_names_and_shapes_are_those_of_the_model_in_its_order() -> None:
    for shape in (V1_1, replace(V1_1, gated=False, activation="relu", tied=True, num_decoder_layers=3)):
        made = [(name, tuple(p.shape)) for name, p in build(shape).named_parameters()]
        assert list(parameter_shapes(shape).items()) == made


@pytest.mark.parametrize("preset", list(PRESETS))
def test_each_parameter_is_counted_once(preset: str) -> None:
    shape = PRESETS[preset]
    assert sum(pieces(shape, MemorySetup(zero={"stage": 0}))) == num_parameters(shape)


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
    """Padding: less than 2 * ranks elements a group, 24 bytes each at most. In fp32 stage 2 accumulates the gradients
    of parameters that ranks share whole: at each of a group's two borders, at most the embedding's."""
    shape = PRESETS["t5-base"]
    setup = MemorySetup(zero={"stage": stage}, world_size=ranks, precision=precision, ema=ema, optimizer=optimizer)
    padding = 24 * 2 * (ranks + 1) * (len(parameter_shapes(shape)) if optimizer == "adamw_rms" or stage == 3 else 2)
    shared = 4 * 4 * shape.vocab_size * shape.d_model if (stage, precision) == (2, "fp32") else 0
    now = sum(states(shape, setup)[0])
    assert sum(states(shape, replace(setup, world_size=ranks + 1))[0]) <= now + padding + shared
    if 0 < stage < 3:
        padding = 24 * 2 * ranks * len(parameter_shapes(shape))
        assert sum(states(shape, replace(setup, zero={"stage": stage + 1}))[0]) <= now + padding


@pytest.mark.parametrize(("stage", "per_parameter"), [(0, 16), (1, 8 + 12 / 8), (2, 2 + 16 / 8), (3, 18 / 8)])
def test_bf16_states_are_those_of_the_table_in_ds_configs(stage: int, per_parameter: float) -> None:
    shape = PRESETS["t5-base"]
    device, host = states(shape, MemorySetup(zero={"stage": stage}, world_size=8))
    assert sum(device) / num_parameters(shape) == pytest.approx(per_parameter, rel=1e-5)
    assert sum(host) == 0
