"""Values of a DeepSpeed file that are valid alone, but not together or at this world size. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigchem.config import RunConfig
from bigchem.ds_config.findings import Findings

ZERO = "zero_optimization"


def check(table: Mapping[str, Any], config: RunConfig, world_size: int, findings: Findings) -> None:
    """Adds a mistake for each invalid combination. table: from `checked`."""
    if findings.stage is None:
        return
    zero = table.get(ZERO, {})
    _offload(zero, findings.stage, findings)
    hpz = zero.get("zero_hpz_partition_size", 1)
    if world_size % hpz:
        findings.mistake(f"{ZERO}.zero_hpz_partition_size", f"{hpz} does not divide the run's {world_size} processes")
    _types(table, config.train.precision, findings)
    _optimizer(zero, config, findings.stage, findings)


def _types(table: Mapping[str, Any], precision: str, findings: Findings) -> None:
    """Stage 3 hangs if fp32 gradients are accumulated in fp16, in which T5's gradients overflow anyway."""
    named = {
        "data_types.grad_accum_dtype": table.get("data_types", {}).get("grad_accum_dtype"),
        "communication_data_type": table.get("communication_data_type"),
    }
    for key, value in named.items():
        if value == "fp16" and precision != "fp16":
            findings.mistake(key, f"\"fp16\", but train.precision = '{precision}': T5 overflows in fp16")


def _offload(zero: Mapping[str, Any], stage: int, findings: Findings) -> None:
    for name, stages in (("offload_optimizer", (1, 2, 3)), ("offload_param", (3,))):
        table = zero.get(name, {})
        device = table.get("device", "none")
        if device == "none":
            continue
        key, known = f"{ZERO}.{name}", " to ".join(str(s) for s in (stages[0], stages[-1]))
        if stage not in stages:
            findings.mistake(key, f"needs stage {known if len(stages) > 1 else stages[0]}, not {stage}")
        elif device == "nvme" and stage != 3:
            findings.mistake(f"{key}.device", f'"nvme" needs stage 3, not {stage}')
        if device == "nvme" and "nvme_path" not in table:
            findings.mistake(f"{key}.nvme_path", "is missing: a folder on a fast local disk")


def _optimizer(zero: Mapping[str, Any], config: RunConfig, stage: int, findings: Findings) -> None:
    kind = config.optimizer.kind
    if kind == "adafactor" and stage > 0:
        findings.mistake(
            f"{ZERO}.stage",
            f"optimizer.kind = 'adafactor' needs whole matrices, but ZeRO-{stage} has flat pieces of them: "
            "train.ds_config = 'zero0', or optimizer.kind = 'adamw_rms', which scales its rates in the same way",
        )
    if kind == "adamw_rms" and zero.get("offload_param", {}).get("device") == "nvme":
        findings.mistake(
            f"{ZERO}.offload_param",
            "optimizer.kind = 'adamw_rms' reads every weight before a step, but these are on NVMe: "
            "optimizer.kind = 'adamw', or offload_param to the CPU",
        )
