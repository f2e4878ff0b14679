"""Every accepted key of the ZeRO section leaves the loss curve unchanged, exports with proof, and resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from distributed import run_ranks
from runs import at_step, config_of, losses, train_here

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.ds_config.key import Use
from bigchem.ds_config.keys import NEEDS_CUDA, OFFLOAD_OPTIMIZER, OFFLOAD_PARAM, ZERO
from bigchem.export import export

CPU = {"device": "cpu", "pin_memory": False}
VALUES: dict[str, dict[int, tuple[Any, ...]]] = {
    "contiguous_gradients": dict.fromkeys((1, 2, 3), (False,)),
    "reduce_scatter": dict.fromkeys((1, 2, 3), (False,)),
    "reduce_bucket_size": dict.fromkeys((1, 2, 3), (5000,)),
    "use_multi_rank_bucket_allreduce": dict.fromkeys((1, 2), (False,)),
    "allgather_partitions": dict.fromkeys((1, 2), (False,)),
    "allgather_bucket_size": dict.fromkeys((1, 2), (5000,)),
    "overlap_comm": {1: (True,), 2: (True,), 3: (False,)},
    "offload_optimizer": dict.fromkeys((1, 2, 3), (CPU,)),
    "offload_param": {3: (CPU, {**CPU, "buffer_count": 3, "max_in_cpu": 0})},
    "sub_group_size": {3: (10_000,)},
    "stage3_prefetch_bucket_size": {3: (0, 1000)},
    "stage3_param_persistence_threshold": {3: (0,)},
    "stage3_model_persistence_threshold": {3: (1000,)},
    "stage3_max_live_parameters": {3: (0,)},
    "stage3_max_reuse_distance": {3: (0,)},
    "stage3_module_granularity_threshold": {3: (100,)},
    "stage3_use_all_reduce_for_fetch_params": {3: (True,)},
    "stage3_allgather_sequential": {3: (True,)},
    "ignore_unused_parameters": dict.fromkeys((1, 2), (False,)),
    "zero_hpz_partition_size": {3: (2,)},
    "memory_efficient_linear": {3: (False,)},
    "log_trace_cache_warnings": {3: (True,)},
    "enable_sanity_checks": {3: (True,)},
}
"""Values other than DeepSpeed's defaults, by key and stage."""


def test_every_accepted_key_has_values_to_try_at_every_stage_that_it_says() -> None:
    accepted = {name: key.stages for name, key in ZERO.items() if key.use is Use.USED and name != "stage"}
    accepted = {name: stages for name, stages in accepted.items() if name not in NEEDS_CUDA}
    assert VALUES.keys() == accepted.keys()
    for name, stages in accepted.items():
        if ZERO[name].inside is None:
            assert VALUES[name].keys() == stages, name
    only_nvme = {
        "nvme_path",
        "buffer_count",
        "buffer_size",
        "max_in_cpu",
        "pipeline_read",
        "pipeline_write",
        "fast_init",
    }
    inside = {name for keys in (OFFLOAD_OPTIMIZER, OFFLOAD_PARAM) for name, key in keys.items() if key.use is Use.USED}
    assert inside - only_nvme == CPU.keys()


def train_each(configs: list[RunConfig]) -> list[str]:
    """Trains runs on this rank one after another. Returns each error, or an empty text."""
    found = []
    for config in configs:
        try:
            train_here(config)
            found.append("")
        except Exception as error:
            found.append(repr(error))
    return found


def of_stage(stage: int, runs: Path, data: Path) -> dict[str, RunConfig]:
    configs = {}
    for key, stages in VALUES.items():
        for i, value in enumerate(stages.get(stage, ())):
            name = f"{key}-{stage}-{i}"
            file = runs / f"{name}.json"
            file.write_text(json.dumps({"zero_optimization": {"stage": stage, key: value}}))
            sections: dict[str, Any] = {"train": {"ds_config": str(file), "steps": 4}, "checkpoint": {"every": 2}}
            configs[name] = config_of(runs, data, name, **sections)
    return configs


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_an_accepted_key_trains_exports_with_proof_and_resumes_on_one_rank(
    stage: int, small_data: Path, tmp_path: Path
) -> None:
    configs = of_stage(stage, tmp_path, small_data)
    plain = config_of(tmp_path, small_data, "plain", train={"ds_config": "zero0", "steps": 4}, checkpoint={"every": 2})
    together = [plain, *configs.values()]
    wrong: dict[str, str] = {}
    for config, error in zip(together, run_ranks(train_each, 2, together, timeout=1500)[0], strict=True):
        if error:
            wrong[config.name] = f"trains: {error}"
    expected = losses(plain)
    resumed = {}
    for name, config in configs.items():
        if name in wrong:
            continue
        if losses(config) != pytest.approx(expected, rel=1e-4):
            wrong[name] = f"trains otherwise: {losses(config)}, not {expected}"
            continue
        try:
            export(config.run_dir, tmp_path / f"{name}-model")
        except UserError as error:
            wrong[name] = f"exports: {error}"
        other = {"ds_config": "zero3"} if "hpz" in name else {}  # hpz needs two ranks
        resumed[name] = at_step(config, 2, tmp_path, f"{name}-resumed", **other)
    for name, error in zip(resumed, run_ranks(train_each, 1, list(resumed.values()), timeout=1500)[0], strict=True):
        if error:
            wrong[name] = f"resumes: {error}"
        elif losses(resumed[name]) != pytest.approx(expected, rel=1e-4):
            wrong[name] = f"resumes otherwise: {losses(resumed[name])}, not {expected}"
    assert not wrong, "\n".join(f"{name}: {why}" for name, why in wrong.items())
