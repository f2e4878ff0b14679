"""Properties of the estimates: volumes of the ZeRO paper and of DeepSpeed, units, and monotonicity."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.base.errors import UserError
from bigchem.config import RunConfig, steps_for
from bigchem.model.flops import training_flops
from bigchem.model.presets import PRESETS, num_parameters
from bigchem.plan.choices import Choice, Room, Workload, choices
from bigchem.plan.memory.peak import memory
from bigchem.plan.memory.setup import MemorySetup
from bigchem.plan.memory.worst_case import setup_of
from bigchem.plan.report import suggestion
from bigchem.plan.speed.cost import cost
from bigchem.plan.speed.hardware import GPUS, INTERCONNECTS, gpu, interconnect, load_gpu, read_bytes
from bigchem.plan.speed.step_time import Assumptions, Cluster, StepTime, step_time, traffic

BASE = PRESETS["t5-base"]
ASSUMED = Assumptions()
TYPICAL = np.array([[300, 200], [100, 50]])


def sent(stage: int, ranks: int, micro_batches: int = 1, **zero: object) -> float:
    """In bf16 elements of the model."""
    setup = MemorySetup(zero={"stage": stage, **zero}, world_size=ranks)
    return traffic(BASE, setup, micro_batches).sent / (2 * num_parameters(BASE))


def test_one_gpu_sends_nothing() -> None:
    assert [sent(stage, 1) for stage in range(4)] == [0, 0, 0, 0]


def test_many_gpus_send_what_deepspeed_sends_and_the_zero_paper_counts() -> None:
    """Stage 0: the paper's 2N. Stage 3 without prefetching and reuse: the paper's 3N. Stages 1 and 2: N more than the
    paper's 2N, because DeepSpeed all-reduces."""
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
    precision = "bf16" if cluster.gpu.peak("bf16") else "fp32"
    setup = MemorySetup(zero={"stage": 2, "overlap_comm": True}, world_size=cluster.world_size, precision=precision)
    setup = replace(setup, **fields)
    return step_time(BASE, setup, cluster, TYPICAL, micro_tokens, 2**20, assumed)


@given(stage=st.sampled_from([2, 3]), size=st.integers(1_000_000, 400_000_000))
def test_only_the_last_bucket_of_many_is_never_hidden(stage: int, size: int) -> None:
    """One bucket hides nothing; smaller ones never cost more."""
    cluster, zero = Cluster(gpu("h100"), 8), {"stage": stage, "overlap_comm": True, "stage3_prefetch_bucket_size": 0}
    some, one = (time_of(cluster, zero={**zero, "reduce_bucket_size": n}) for n in (size, num_parameters(BASE)))
    assert some.exposed <= one.exposed
    backward = one.traffic.in_backward / (ASSUMED.link * cluster.gpu.link)
    assert one.exposed >= backward
    assert some.exposed >= 0.999 * backward / -(-num_parameters(BASE) // size)


def test_scaled_rates_cost_the_optimizer_memory_traffic() -> None:
    plain, scaled = (time_of(Cluster(gpu("h100")), optimizer=kind) for kind in ("adamw", "adamw_rms"))
    assert scaled.optimizer == pytest.approx(plain.optimizer * 44 / 28)


def test_computing_at_the_peak_takes_operations_over_peak() -> None:
    found = time_of(Cluster(gpu("h100")), assumed=Assumptions(mfu=1.0, launch=0.0))
    operations = training_flops(BASE, TYPICAL[:, 0], TYPICAL[:, 1]) / TYPICAL.sum() * 2**20 * 0.995
    assert found.compute == pytest.approx(operations / 989.4e12)
    assert found.exposed == 0
    assert found.tokens_per_s == pytest.approx(2**20 * 0.995 / found.total)


@pytest.mark.thorough
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
    assert found.peak("fp16") > 1e14
    assert found.peak("bf16") == (0.0 if name.startswith("v100") else found.peak("fp16"))
    assert found.peak("fp16") > found.peak("fp32") > 0
    assert found.pcie <= found.link < found.memory_bandwidth
    assert found.watts is not None
    assert 100 <= found.watts <= 1000


def test_a_run_in_fp32_has_tf32s_speed_where_it_is_on_and_the_gpu_has_it(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(GPU_FILE)
    own, faster = load_gpu(tmp_path / "own.toml")[0], GPU_FILE + "tflops_tf32 = 200\n"
    (tmp_path / "faster.toml").write_text(faster)
    gpus = gpu("h100"), gpu("v100-32"), own, load_gpu(tmp_path / "faster.toml")[0]
    setups = [MemorySetup(zero={}, precision="fp32", tf32=tf32) for tf32 in (True, False)]
    assert setup_of(RunConfig.model_validate({}), {}, 1, "cuda").tf32  # the default
    for found, faster_by in zip(gpus, (494.7 / 66.9, 1, 1, 4), strict=True):
        on, off = (step_time(BASE, s, Cluster(found, 1), TYPICAL, 32_768, 32_768, ASSUMED).compute for s in setups)
        assert off / on == pytest.approx(faster_by)


GPU_FILE = """name = "Some GPU"
memory_gb = 96
memory_gb_per_s = 2000
tflops_bf16 = 400
tflops_fp32 = 50
link_gb_per_s = 64
"""


def test_a_gpu_of_ones_own_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text(GPU_FILE)
    found, between = load_gpu(path)
    assert (found.memory, found.link, found.pcie, found.watts, between) == (96e9, 64e9, 32e9, None, None)
    assert [found.peak(precision) for precision in ("bf16", "fp16", "fp32")] == [4e14, 4e14, 5e13]
    path.write_text(GPU_FILE.replace("tflops_bf16 = 400\n", "") + "watts = 350\nbetween_gb_per_s = 25\n")
    found, between = load_gpu(path)
    assert (found.peak("bf16"), found.watts, between) == (0.0, 350, 25e9)
    for wrong, message in (("memory_gb = 0\n", "memory_gb"), ("memory = 3\n", "memory_gb")):
        path.write_text(GPU_FILE.replace("memory_gb = 96\n", wrong))
        with pytest.raises(UserError, match=message):
            load_gpu(path)


def test_hpz_gathers_across_nodes_once_a_step_and_then_within_the_node() -> None:
    """Two nodes of eight GPUs, four micro-batches with two gathers each: seven of eight gathers stay inside a node."""
    zero = {
        "stage": 3,
        "stage3_param_persistence_threshold": 0,
        "stage3_max_reuse_distance": 0,
        "stage3_prefetch_bucket_size": 0,
    }
    n = num_parameters(BASE)
    plain, inside = (
        traffic(BASE, MemorySetup(zero={**zero, **more}, world_size=16), 4)
        for more in ({}, {"zero_hpz_partition_size": 8})
    )
    assert plain.gathered == inside.gathered == 8 * n
    assert (plain.gathered_in_group, inside.gathered_in_group) == (0, 7 * n)
    assert inside.in_group == 2 * 7 * n * 7 / 8
    assert inside.sent - inside.in_group == pytest.approx(2 * 15 / 16 * (n + 4 * n), rel=1e-3)


@given(group=st.sampled_from([2, 4, 8]), prefetched=st.booleans(), micro_tokens=st.sampled_from([8192, 32768]))
def test_hpz_is_never_told_to_be_slower_and_crosses_nodes_less(group: int, prefetched: bool, micro_tokens: int) -> None:
    cluster = Cluster(gpu("h100"), 8, 2, INTERCONNECTS["ethernet-100"])
    zero = {"stage": 3, **({} if prefetched else {"stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": 0})}
    plain = time_of(cluster, micro_tokens, zero=zero)
    hpz = time_of(cluster, micro_tokens, zero={**zero, "zero_hpz_partition_size": group})
    assert hpz.tokens_per_s >= plain.tokens_per_s
    assert (hpz.between_nodes < plain.between_nodes) == (plain.micro_batches > 1 or not prefetched)
    across = time_of(replace(cluster, gpus=1, nodes=16), micro_tokens, zero={**zero, "zero_hpz_partition_size": group})
    assert across.between_nodes == across.traffic.sent


def test_hpz_holds_a_second_copy_in_the_plan_too() -> None:
    lengths = np.full(2, 100)
    zero = {"stage": 3, "stage3_param_persistence_threshold": 0}
    plain, hpz = (
        memory(BASE, MemorySetup(zero={**zero, **more}, world_size=16), lengths, lengths)
        for more in ({}, {"zero_hpz_partition_size": 8})
    )
    copy = hpz.device.hpz_weights
    assert copy == pytest.approx(2 * num_parameters(BASE) / 8, rel=1e-5)
    assert hpz.total == plain.total + copy
    assert hpz.items["hpz_weights"] == copy


def test_a_run_costs_its_hours_on_every_gpu_at_most_at_their_power() -> None:
    cluster = Cluster(gpu("h100"), 4)
    time = time_of(cluster)
    found = cost(time, cluster, 1000)
    assert found.hours == pytest.approx(1000 * time.total / 3600)
    assert found.gpu_hours == 4 * found.hours
    assert found.kwh == pytest.approx(0.7 * found.gpu_hours)
    assert found.tokens == pytest.approx(1000 * 0.995 * 2**20, rel=1e-6)
    assert steps_for(found.tokens, 2**20) == 1000
    assert cost(time, replace(cluster, gpu=replace(cluster.gpu, watts=None)), 1000).kwh is None


def choice(gpus: int, micro_tokens: int, global_tokens: int, **zero: object) -> Choice:
    work = Workload(BASE, MemorySetup(zero={}), np.array([300, 200]), TYPICAL, global_tokens)
    between = INTERCONNECTS["ib-hdr"]
    tables = {"some": {"zero_optimization": {"stage": 2, **zero}, "data_types": {"grad_accum_dtype": "fp32"}}}
    cluster = Cluster(gpu("h100"), gpus // 2, 2, between)
    return choices(work, tables, [micro_tokens], cluster, Room(80e9), ASSUMED)[0]


def test_full_micro_batches_are_left_alone_and_others_filled() -> None:
    full = suggestion(choice(4, 8192, 65_536), 65_536)
    assert (full.global_tokens, full.micro_batches) == (65_536, 2)
    assert "100 % full" in full.why
    found = suggestion(choice(4, 8192, 70_000), 70_000)  # three micro-batches, of which the last would be nearly empty
    assert (found.global_tokens, found.micro_batches) == (65_536, 2)
    assert "70,000 would leave micro-batches 71 % full" in found.why


def test_where_gpus_wait_the_accumulation_that_mends_it_is_named() -> None:
    why = suggestion(choice(4, 8192, 32_768, stage=1), 32_768).why
    count = int(re.findall(r"with ([\d,]+) micro-batches", why)[0])
    assert f"global_tokens = {count * 4 * 8192:,}" in why
    then = choice(4, 8192, count * 4 * 8192, stage=1).time
    assert 0.09 < then.exposed / then.total <= 0.1
    assert "micro-batches: " not in suggestion(choice(4, 8192, 32_768, stage=2), 32_768).why


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
