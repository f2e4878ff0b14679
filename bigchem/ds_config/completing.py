"""From a run's DeepSpeed file to the table that DeepSpeed gets. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem.base import json_file, resources
from bigchem.base.errors import UserError
from bigchem.base.toml import quoted
from bigchem.config import RunConfig
from bigchem.ds_config import checking, combinations, owned
from bigchem.ds_config.findings import Findings


@dataclass(frozen=True)
class Completed:
    """table: for DeepSpeed. notes: lines on "auto" and ignored values. path: of the file."""

    table: dict[str, Any]
    notes: tuple[str, ...]
    path: Path

    @property
    def is_shipped(self) -> bool:
        """Whether the file is shipped, and so checked by the tests."""
        return self.path.parent == resources.folder("ds_configs")


def completed(config: RunConfig, world_size: int) -> Completed:
    """The run's DeepSpeed file, checked and completed from the run configuration.

    UserError that lists every mistake: unknown keys, wrong values, keys that DeepSpeed has removed, settings that
    bigchem cannot run or read back, and contradictions of the run configuration.
    """
    path = resources.find("ds_configs", config.train.ds_config, ".json")
    written, findings = json_file.load_config(path, '{"zero_optimization": {"stage": 2}}'), Findings()
    _refuse_accelerate(written, path)
    owned.blocks(written, config, findings)
    table = checking.checked(written, findings)
    owned.complete(table, config, world_size, findings)
    combinations.check(table, config, world_size, findings)
    findings.refuse(str(path))
    table |= {"zero_allow_untested_optimizer": True, "steps_per_print": 10**9, "wall_clock_breakdown": False}
    unsharded = () if "stage" in table.get("zero_optimization", {}) else ("no zero_optimization.stage: ZeRO-0",)
    return Completed(table, (*unsharded, *findings.notes()), path)


def _refuse_accelerate(written: dict[str, Any], path: Path) -> None:
    """UserError for a configuration of `accelerate launch`, which names or describes a DeepSpeed file."""
    if not {"compute_environment", "distributed_type", "deepspeed_config"} & written.keys():
        return
    inside = written.get("deepspeed_config")
    inside = inside if isinstance(inside, dict) else {}
    file, stage = inside.get("deepspeed_config_file"), inside.get("zero_stage")
    hint = "give a DeepSpeed file, or a shipped one: train.ds_config = 'zero2'"
    if isinstance(file, str):
        hint = f"give its deepspeed_config_file: train.ds_config = {quoted(file)}"
    elif stage in (0, 1, 2, 3):
        hint = f"its deepspeed_config has zero_stage {stage:g}: train.ds_config = 'zero{stage:g}'"
    raise UserError("an Accelerate configuration, not DeepSpeed's", str(path), hint)


def ds_config_for(config: RunConfig, world_size: int) -> dict[str, Any]:
    """The table of `completed`."""
    return completed(config, world_size).table


def zero_stage(ds_config: dict[str, Any]) -> int:
    """The ZeRO stage of a DeepSpeed configuration; default: 0."""
    return int(ds_config.get("zero_optimization", {}).get("stage", 0))


def offloads(ds_config: dict[str, Any]) -> bool:
    """Whether a DeepSpeed configuration offloads the optimizer's states."""
    device = ds_config.get("zero_optimization", {}).get("offload_optimizer", {}).get("device", "none")
    return bool(device != "none")
