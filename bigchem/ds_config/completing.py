"""From the file that a run names to the table that DeepSpeed gets. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem.base import json_config, resources
from bigchem.config import RunConfig
from bigchem.ds_config import checking, combinations, owned
from bigchem.ds_config.findings import Findings


@dataclass(frozen=True)
class Completed:
    """table: for DeepSpeed. notes: lines about what is "auto" in the file, or ignored. path: of the file."""

    table: dict[str, Any]
    notes: tuple[str, ...]
    path: Path

    @property
    def is_shipped(self) -> bool:
        """Whether the file is one of ours, which the tests check."""
        return self.path.parent == resources.folder("ds_configs")


def completed(config: RunConfig, world_size: int) -> Completed:
    """The DeepSpeed file that the run names, checked and completed by what the run configuration owns.

    UserError that names every mistake in it: unknown keys, wrong values, what DeepSpeed has removed, what bigchem
    cannot run or read back, and what contradicts the run configuration.
    """
    path = resources.find("ds_configs", config.train.ds_config, ".json")
    written, found = json_config.read(path, '{"zero_optimization": {"stage": 2}}'), Findings()
    owned.blocks(written, config, found)
    table = checking.checked(written, found)
    owned.complete(table, config, world_size, found)
    combinations.check(table, config, world_size, found)
    found.refuse(str(path))
    table |= {"zero_allow_untested_optimizer": True, "steps_per_print": 10**9, "wall_clock_breakdown": False}
    return Completed(table, found.notes(), path)


def ds_config_for(config: RunConfig, world_size: int) -> dict[str, Any]:
    """The table of `completed`."""
    return completed(config, world_size).table


def zero_stage(ds_config: dict[str, Any]) -> int:
    """The ZeRO stage of a DeepSpeed configuration; 0 where it says nothing."""
    return int(ds_config.get("zero_optimization", {}).get("stage", 0))


def offloads(ds_config: dict[str, Any]) -> bool:
    """Whether a DeepSpeed configuration keeps the optimizer's states off the device."""
    device = ds_config.get("zero_optimization", {}).get("offload_optimizer", {}).get("device", "none")
    return bool(device != "none")
