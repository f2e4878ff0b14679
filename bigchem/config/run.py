"""The whole configuration: all sections, what one requires of another, and steps in tokens."""

from __future__ import annotations

import math
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, model_validator

from bigchem.base.errors import nearest
from bigchem.base.toml import Section
from bigchem.config.conduct import (
    CheckpointConfig,
    EvaluateConfig,
    HealthConfig,
    NotifyConfig,
    SweepPoint,
    ValidationConfig,
)
from bigchem.config.learning import DataConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig

HEADROOM = 0.005
"""Share of global_tokens that a step leaves free, since examples do not pack into equal micro-batches without gaps.
Otherwise a step of exactly world_size * micro_tokens would need one more, nearly empty, micro-batch on every rank."""


class RunConfig(Section):
    """A run's configuration."""

    replaces = MappingProxyType({"train.steps": "train.tokens", "train.tokens": "train.steps"})

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    """Name of the run and its folder: letters, digits, `.`, `_` and `-`, starting with a letter or digit."""
    runs: str = "runs"
    """Folder that holds the run folders."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed for weights, dropout and example order."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    health: HealthConfig = HealthConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    notify: NotifyConfig = NotifyConfig()
    sweep: SweepPoint = SweepPoint()

    @model_validator(mode="after")
    def _derive_steps(self) -> RunConfig:
        """train.steps from train.tokens. Both may be given, as in a run's folder, if they agree."""
        train = self.train
        if train.tokens is None:
            return self
        steps = steps_for(train.tokens, self.data.global_tokens)
        if "steps" in train.model_fields_set and train.steps != steps:
            raise ValueError(
                f"train.steps = {train.steps}, but train.tokens = {train.tokens:g} are {steps} steps: give one of them"
            )
        found = train.model_copy(update={"steps": steps})
        if train.profile is not None and not found.profiled:
            raise ValueError(f"train.profile = {train.profile} ends after the {steps} steps of train.tokens")
        return self.model_copy(update={"train": found})

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        if self.schedule.warmup_steps >= self.train.steps:
            raise ValueError(
                f"schedule.warmup_steps = {self.schedule.warmup_steps} >= train.steps = {self.train.steps}: "
                "the run would end inside its warm-up"
            )
        metric, known = self.validation.metric, ["loss", *(f"loss/{task}" for task in self.data.mixture)]
        if metric not in known and (self.data.mixture or not metric.startswith("loss/")):
            raise ValueError(f"unknown validation.metric '{metric}'; {nearest(metric, known)}")
        if self.schedule.warmup_steps + self.schedule.decay_steps > self.train.steps:
            raise ValueError(
                f"schedule.warmup_steps + schedule.decay_steps = "
                f"{self.schedule.warmup_steps + self.schedule.decay_steps} > train.steps = {self.train.steps}"
            )
        return self

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return Path(self.runs) / self.name


def steps_for(tokens: float, global_tokens: int) -> int:
    """Optimizer steps that train on this many real tokens."""
    return math.ceil(tokens / (global_tokens * (1 - HEADROOM)))


def tokens_of(config: RunConfig) -> float:
    """Real tokens of a whole run, as its full steps hold them: a step ends before the example that would not fit."""
    return config.train.steps * config.data.global_tokens * (1 - HEADROOM)
