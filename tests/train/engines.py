"""Engines one after another in the same rank processes, for tests that inspect them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from torch import distributed as dist

from bigchem.config import RunConfig
from bigchem.data.loader import Loader
from bigchem.data.step_plan import open_data
from bigchem.model.t5 import PackedT5
from bigchem.train import schedule
from bigchem.train.checkpoint.store import Manifest
from bigchem.train.engine import Engine
from bigchem.train.model_factory import build

CPU = torch.device("cpu")


@dataclass
class Training:
    """A run's engine and position, from the parts of train/loop.py without a run folder."""

    config: RunConfig
    model: PackedT5 = field(init=False)
    position: int = 0
    number: int = 0

    def __post_init__(self) -> None:
        data = open_data(self.config.data)
        self.loader = Loader(data, self.config.data, self.config.seed, dist.get_rank(), dist.get_world_size())
        self.model = build(self.config, data, CPU)
        self.engine = Engine(self.model, self.config, CPU, self.loader.names)

    def gradients(self) -> float:
        """Computes the next step's gradients. Returns its loss."""
        step = self.loader.plan.steps.at(self.position)
        self.position = step.stop
        return self.engine.forward_backward(self.loader.load(step), 0).mean

    def move(self) -> float:
        """Takes the optimizer step. Returns the gradient norm."""
        shape = schedule.multiplier(self.config.schedule, self.number, self.config.train.steps)
        self.number += 1
        return self.engine.optimizer_step(self.config.optimizer.lr * shape)

    def run(self, steps: int, after: Callable[[], Any] = lambda: None) -> list[float]:
        """Losses of the next steps."""
        losses = []
        for _ in range(steps):
            losses.append(self.gradients())
            self.move()
            after()
        return losses

    def weights(self) -> dict[str, torch.Tensor]:
        """Whole fp32 weights."""
        plain = self.engine.zero_stage == 0
        return {
            n: (p if plain else safe_get_full_fp32_param(p)).detach().clone() for n, p in self.model.named_parameters()
        }

    def state(self, key: str) -> dict[str, torch.Tensor]:
        """Whole optimizer state of every parameter."""
        optimizer, plain = self.engine._optimizer, self.engine.zero_stage == 0
        zero = self.engine._engine.optimizer
        if hasattr(
            zero, "_hp_optimizer_states_linked"
        ):  # DeepSpeed links once, after the first group's step, and misses the others
            zero._hp_optimizer_states_linked = False
            zero._lazy_init_hp_params_optimizer_state()
        return {
            n: (optimizer.state[p][key] if plain else safe_get_full_optimizer_state(p, key)).detach().clone()
            for n, p in self.model.named_parameters()
        }


def manifest_of(done: Training) -> Manifest:
    """The manifest of a published checkpoint with the engine's files."""
    engine, train = done.engine, done.config.train
    kind = done.config.optimizer.kind
    return Manifest(0, 0, 0, engine.world_size, engine.zero_stage, train.precision, kind, "", {}, {})


def resumed(config: RunConfig, folder: Path, done: Training) -> Training:
    """A second engine that loads what the first one saves."""
    done.engine.save(folder, "saved")
    dist.barrier()
    again = Training(config, position=done.position, number=done.number)
    again.engine.load(folder / "saved", manifest_of(done))
    return again
