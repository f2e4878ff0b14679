"""The plan's arithmetic against what autograd keeps, and its parts against each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import V1_1, build

from bigchem.data.loader import pack
from bigchem.model.presets import PRESETS, Shape, num_parameters
from bigchem.plan.memory import Setup, activations, memory, states

V1_0 = replace(V1_1, gated=False, tied=True)
FP32 = Setup(zero={"stage": 0}, precision="fp32", device="cpu")


def saved_bytes(shape: Shape, setup: Setup, source: np.ndarray, target: np.ndarray) -> int:
    """Bytes of the storages that autograd keeps of a forward pass, but for weights and ids."""
    model = build(shape, dropout=0.1 if setup.dropout else 0.0)
    for stack in (model.encoder, model.decoder):
        stack.checkpoint_activations = setup.checkpoint_activations
    model = model.to(torch.float32 if setup.precision == "fp32" else torch.bfloat16).train()
    ids = [np.arange(n) % shape.vocab_size for n in (*source, *target)]
    batch = pack(ids[: len(source)], ids[len(source) :], np.zeros(len(source), dtype=np.int64))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.is_floating_point():
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(batch).total  # noqa: B018
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("shape", [V1_0, V1_1], ids=["v1.0", "v1.1"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [True, False], ids=["dropout", "no dropout"])
def test_activations_are_those_that_autograd_keeps(shape: Shape, precision: str, dropout: bool) -> None:
    wide = replace(shape, d_model=64, d_kv=16, d_ff=160, num_heads=4, num_layers=3, num_decoder_layers=2)
    setup = replace(FP32, precision=precision, dropout=dropout)
    source, target = np.full(6, 70), np.full(6, 50)
    kept, _ = activations(wide, setup, source, target)
    gradient_of_head = 4 * wide.vocab_size * wide.d_model
    assert kept + gradient_of_head == pytest.approx(saved_bytes(wide, setup, source, target), rel=0.1)


def test_checkpointed_activations_are_the_blocks_inputs_and_one_block() -> None:
    shape = replace(V1_0, num_layers=6, num_decoder_layers=6)
    source, target = np.full(4, 60), np.full(4, 40)
    whole, _ = activations(shape, FP32, source, target)
    few, _ = activations(shape, replace(FP32, checkpoint_activations=True), source, target)
    per_layer = whole - activations(replace(shape, num_layers=5, num_decoder_layers=5), FP32, source, target)[0]
    inputs = 4 * shape.d_model * (6 * 240 + 6 * 160)
    assert whole - 6 * per_layer + inputs < few < whole - 5 * per_layer + inputs


@given(
    stage=st.integers(0, 3), ranks=st.integers(1, 64), precision=st.sampled_from(["fp32", "bf16"]), ema=st.booleans()
)
def test_more_ranks_and_higher_stages_never_hold_more(stage: int, ranks: int, precision: str, ema: bool) -> None:
    setup = Setup(zero={"stage": stage}, world_size=ranks, precision=precision, ema=ema)
    now = states(PRESETS["t5-base"], setup)
    assert sum(states(PRESETS["t5-base"], replace(setup, world_size=ranks + 1))) <= sum(now)
    if 0 < stage < 3:
        assert sum(states(PRESETS["t5-base"], replace(setup, zero={"stage": stage + 1}))) <= sum(now)


@pytest.mark.parametrize(("stage", "per_parameter"), [(0, 16), (1, 8 + 12 / 8), (2, 2 + 16 / 8), (3, 18 / 8)])
def test_bf16_states_are_those_of_the_table_in_ds_configs(stage: int, per_parameter: float) -> None:
    shape = PRESETS["t5-base"]
    held = sum(states(shape, Setup(zero={"stage": stage}, world_size=8)))
    assert held / num_parameters(shape) == pytest.approx(per_parameter, rel=1e-6)


def test_what_is_offloaded_is_in_host_memory() -> None:
    offloaded = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    lengths = np.full(2, 100)
    there, here = (
        memory(PRESETS["t5-small"], Setup(zero=zero, world_size=2), lengths, lengths)
        for zero in (offloaded, {"stage": 3})
    )
    assert (there.weights, there.gradients, there.masters, there.moments) == (0, 0, 0, 0)
    assert there.host == here.weights + here.gradients + here.masters + here.moments
    assert there.total + there.host == here.total


def test_adafactors_moments_are_rows_and_columns() -> None:
    shape = replace(V1_1, vocab_size=300)
    optimizer = torch.optim.Adafactor(build(shape).parameters())
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones_like(p)
    optimizer.step()
    kept = [v for s in optimizer.state.values() for k, v in s.items() if k != "step"]
    assert states(shape, replace(FP32, optimizer="adafactor"))[3] == sum(v.nbytes for v in kept)
