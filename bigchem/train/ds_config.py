"""DeepSpeed's configuration: the pure JSON that a run names, completed by what the run configuration owns.

Needs neither torch nor deepspeed, so that a submission can be checked before it is queued.
"""

from __future__ import annotations

import json
from typing import Any

from bigchem import shipped
from bigchem.config import RunConfig
from bigchem.data.batches import accumulation
from bigchem.errors import UserError


def ds_config_for(config: RunConfig, world_size: int) -> dict[str, Any]:
    """The DeepSpeed JSON that the run names, completed by what the run configuration owns.

    A JSON that sets one of those itself to another value ("auto" is fine) is refused with both sides named.
    """
    path = shipped.find("ds_configs", config.train.ds_config, ".json")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"not JSON: {error}", str(path)) from None
    precision = config.train.precision
    owned: dict[str, tuple[Any, str]] = {
        "train_micro_batch_size_per_gpu": (1, "one packed micro-batch: data.micro_tokens"),
        "gradient_accumulation_steps": (
            accumulation(world_size, config.data.micro_tokens, config.data.global_tokens),
            "data.global_tokens / (world_size * data.micro_tokens)",
        ),
        "gradient_clipping": (config.optimizer.grad_clip, "optimizer.grad_clip"),
        "bf16": ({"enabled": precision == "bf16"}, "train.precision"),
        "fp16": ({"enabled": precision == "fp16"}, "train.precision"),
    }
    for key in ("optimizer", "scheduler", "train_batch_size"):
        if key in table:
            raise UserError(f"'{key}' belongs to the run configuration", str(path), f"remove '{key}' there")
    for key, (value, field) in owned.items():
        stated = table.get(key, "auto")
        if isinstance(stated, dict) and isinstance(value, dict):
            clash = stated.get("enabled", "auto") not in ("auto", value["enabled"])
            table[key] = {**stated, **value}
        else:
            clash = stated not in ("auto", value)
            table[key] = value
        if clash:
            raise UserError(f"{key} = {stated}, but {field} gives {value}", str(path), f"remove '{key}' there")
    stage = zero_stage(table)
    if precision == "bf16" and stage > 0:  # stage 0 refuses another type than the weights'
        table["data_types"] = {"grad_accum_dtype": "fp32", **table.get("data_types", {})}
    refuse_optimizer(config, table, str(path))
    return {**table, "zero_allow_untested_optimizer": True, "steps_per_print": 10**9, "wall_clock_breakdown": False}


def zero_stage(ds_config: dict[str, Any]) -> int:
    """The ZeRO stage of a DeepSpeed configuration; 0 where it says nothing."""
    return int(ds_config.get("zero_optimization", {}).get("stage", 0))


def offloads(ds_config: dict[str, Any]) -> bool:
    """Whether a DeepSpeed configuration keeps the optimizer's states off the device."""
    device = ds_config.get("zero_optimization", {}).get("offload_optimizer", {}).get("device", "none")
    return bool(device != "none")


def refuse_optimizer(config: RunConfig, ds_config: dict[str, Any], where: str) -> None:
    """UserError if the optimizer cannot work on what this ZeRO configuration gives it."""
    kind, stage = config.optimizer.kind, zero_stage(ds_config)
    if kind == "adafactor" and stage > 0:
        raise UserError(
            f"optimizer.kind = 'adafactor' needs whole matrices, and ZeRO-{stage} gives it flat pieces of them",
            where,
            "train.ds_config = 'zero0', or optimizer.kind = 'adamw_rms', which scales its rates in the same way",
        )
    offloaded = ds_config.get("zero_optimization", {}).get("offload_param", {}).get("device")
    if kind == "adamw_rms" and offloaded == "nvme":
        raise UserError(
            "optimizer.kind = 'adamw_rms' looks at every weight before a step, and these are on NVMe",
            where,
            "optimizer.kind = 'adamw', or offload_param to the CPU",
        )
