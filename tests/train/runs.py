"""Small training runs for the tests of train/, as functions that ranks can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bigchem.config import RunConfig
from bigchem.launch.runfolder import prepare
from bigchem.strict import validate
from bigchem.train.loop import train


def config_of(runs: Path, data_dir: Path, name: str, **sections: dict[str, Any]) -> RunConfig:
    """A run of the smallest model: a few steps, fp32, no dropout, checkpoints every three steps."""
    table: dict[str, Any] = {
        "name": name,
        "runs": str(runs),
        "model": {"preset": "sweep-0.2m", "dropout": 0.0},
        "data": {
            "path": str(data_dir),
            "global_tokens": 1500,
            "micro_tokens": 600,
            "max_source_tokens": 300,
            "max_target_tokens": 300,
        },
        "train": {"steps": 6, "precision": "fp32", "ds_config": "zero2", "log_every": 1},
        "optimizer": {"lr": 1e-3},
        "schedule": {"warmup_steps": 2},
        "checkpoint": {"every": 3, "keep": 9},
        "evaluate": {"at_end": False},
    }
    for section, fields in sections.items():
        table[section] = {**table.get(section, {}), **fields}
    return validate(RunConfig, table, name)


def losses(config: RunConfig) -> list[float]:
    """Loss of every step that the run folder holds."""
    lines = (config.run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def train_here(config: RunConfig) -> int:
    """Trains on this rank; the number of steps done."""
    from torch import distributed as dist

    if dist.get_rank() == 0:
        prepare(config)
    dist.barrier()
    return train(config, torch.device("cpu")).steps


def train_in_two_parts(config: RunConfig) -> int:
    """Trains whole, then once more from the checkpoint in the middle, as after a crash."""
    import shutil

    from torch import distributed as dist

    train_here(config)
    dist.barrier()
    if dist.get_rank() == 0:
        again = config.model_copy(update={"name": config.name + "-resumed"})
        shutil.copytree(config.run_dir, again.run_dir)
        shutil.rmtree(again.run_dir / "checkpoints" / "step_00000006")
    dist.barrier()
    return train_here(config.model_copy(update={"name": config.name + "-resumed"}))
