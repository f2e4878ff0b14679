"""The estimates' laws: volumes of the ZeRO paper and of DeepSpeed, units, and what must never get faster or slower."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.errors import UserError
from bigchem.model.flops import training_flops
from bigchem.model.presets import PRESETS, num_parameters
from bigchem.plan.hardware import GPUS, INTERCONNECTS, gpu, interconnect, read_bytes
from bigchem.plan.setup import Setup
from bigchem.plan.speed import Assumptions, Cluster, StepTime, step_time
from bigchem.plan.traffic import traffic

BASE = PRESETS["t5-base"]
ASSUMED = Assumptions()
TYPICAL = np.array([[300, 200], [100, 50]])


def sent(stage: int, ranks: int, micro_batches: int = 1, **zero: object) -> float:
    """In bf16 elements of the model."""
    setup = Setup(zero={"stage": stage, **zero}, world_size=ranks)
    return traffic(BASE, setup, micro_batches).sent / (2 * num_parameters(BASE))


def test_one_gpu_sends_nothing() -> None:
    assert [sent(stage, 1) for stage in range(4)] == [0, 0, 0, 0]


def test_many_gpus_send_what_deepspeed_sends_and_the_zero_paper_counts() -> None:
    """Stage 0: the paper's 2N. Stage 3 without prefetching and reuse: the paper's 3N. Stages 1 and 2: N more than the
    paper's 2N, for DeepSpeed all-reduces."""
    plain = {"stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": 0, "stage3_param_persistence_threshold": 0}
    assert sent(0, 1000) == pytest.approx(2, rel=2e-3)
    assert sent(1, 1000) == sent(2, 1000) == pytest.approx(3, rel=2e-3)
    assert sent(3, 1000, **plain) == pytest.approx(3, rel=2e-3)
    assert sent(3, 1000) == pytest.approx(2, rel=1e-2)  # DeepSpeed's defaults keep all of t5-base between the passes


def test_accumulation_costs_stages_2_and_3_and_not_0_and_1() -> None:
    assert sent(0, 8, 4) == sent(0, 8)
    assert sent(1, 8, 4) == sent(1, 8)
    assert sent(2, 8, 4) == pytest.approx(sent(2, 8) + 3 * 2 * 7 / 8)
    assert sent(3, 8, 4) == pytest.approx(4 * sent(3, 8), rel=1e-2)


def time_of(cluster: Cluster, micro_tokens: int = 8192, assumed: Assumptions = ASSUMED, **fields: Any) -> StepTime:
    setup = replace(Setup(zero={"stage": 2, "overlap_comm": True}, world_size=cluster.world_size), **fields)
    return step_time(BASE, setup, cluster, TYPICAL, micro_tokens, 2**20, assumed)


def test_computing_at_the_peak_takes_operations_over_peak() -> None:
    found = time_of(Cluster(gpu("h100")), assumed=Assumptions(mfu=1.0, launch=0.0))
    operations = training_flops(BASE, TYPICAL[:, 0], TYPICAL[:, 1]) / TYPICAL.sum() * 2**20 * 0.995
    assert found.compute == pytest.approx(operations / 989.4e12)
    assert found.exposed == 0
    assert found.tokens_per_s == pytest.approx(2**20 * 0.995 / found.total)


@given(
    name=st.sampled_from(sorted(GPUS)),
    gpus=st.sampled_from([1, 2, 4, 8]),
    stage=st.integers(0, 3),
    checkpointed=st.booleans(),
)
def test_what_costs_more_is_never_told_to_be_faster(name: str, gpus: int, stage: int, checkpointed: bool) -> None:
    cluster, zero = Cluster(gpu(name), gpus), {"stage": stage, "overlap_comm": True}
    now = time_of(cluster, zero=zero, checkpoint_activations=checkpointed)
    assert now.tokens_per_s <= time_of(cluster, zero=zero).tokens_per_s
    assert now.between_nodes == 0
    slow = replace(cluster, nodes=2, between=INTERCONNECTS["ethernet-10"])
    assert time_of(slow, zero=zero).between_nodes > 0
    fast = replace(slow, between=INTERCONNECTS["ib-ndr-x8"])
    assert time_of(slow, zero=zero).tokens_per_s <= time_of(fast, zero=zero).tokens_per_s
    assert time_of(fast, zero=zero).tokens_per_s <= 2.01 * time_of(cluster, zero=zero).tokens_per_s
    if stage >= 2:
        offloaded = {**zero, "offload_optimizer": {"device": "cpu"}}
        assert time_of(cluster, zero=offloaded).tokens_per_s < time_of(cluster, zero=zero).tokens_per_s
    small = time_of(cluster, 1024, zero=zero)
    assert small.micro_batches == 8 * time_of(cluster, 8192, zero=zero).micro_batches
    assert small.tokens_per_s <= time_of(cluster, 8192, zero=zero).tokens_per_s


@pytest.mark.parametrize("name", sorted(GPUS))
def test_every_gpu_has_a_peak_and_links_no_faster_than_its_memory(name: str) -> None:
    found = gpu(name)
    assert found.peak("bf16") > 1e14
    assert found.peak("bf16") > found.peak("fp32") > 0
    assert found.pcie <= found.link < found.memory_bandwidth


@pytest.mark.parametrize(
    ("text", "size"), [("80GB", 80e9), ("80", 80e9), ("79.1 GiB", 79.1 * 2**30), ("1.5TB", 1.5e12), ("2tib", 2**41)]
)
def test_sizes_are_read_with_their_units(text: str, size: float) -> None:
    assert read_bytes(text, "--gpu-memory") == size


def test_mistakes_are_told_with_what_is_known() -> None:
    for call in (lambda: read_bytes("80 apples", "--gpu-memory"), lambda: read_bytes("0GB", "--gpu-memory")):
        with pytest.raises(UserError, match=r"79\.1GiB"):
            call()
    with pytest.raises(UserError, match="did you mean 'h100'"):
        gpu("h10")
    with pytest.raises(UserError, match="did you mean 'ib-hdr'"):
        interconnect("ib-hd", gpu("h100"), 8)
    assert interconnect("12.5", gpu("h100"), 8) == 12.5e9
    assert interconnect("nvlink", gpu("h100"), 8) == 8 * 450e9
