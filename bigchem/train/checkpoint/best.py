"""What a run's validations have shown so far, kept in its checkpoints. Pure but for reading them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.storage.shards import Data
from bigchem.train.checkpoint.store import Manifest, latest, step_name


@dataclass(frozen=True)
class Best:
    """The lowest value of a metric. step: where it was reached, 0: nowhere yet. since: validations after it.

    keep: its checkpoint stays, and is the one to be exported.
    """

    metric: str
    keep: bool
    value: float = math.inf
    step: int = 0
    since: int = 0

    @staticmethod
    def of(config: RunConfig, state: dict[str, Any]) -> Best:
        """What a checkpoint's state says; nothing yet where it says nothing, or judged by another metric."""
        fresh = Best(config.validation.metric, config.validation.keep_best)
        saved = state.get("validation", {})
        return replace(fresh, **{**saved, "keep": fresh.keep}) if saved.get("metric") == fresh.metric else fresh

    def after(self, step: int, value: float) -> Best:
        """With one more validation. An equal value, and one that is not a number, is no improvement."""
        if value < self.value:
            return replace(self, value=value, step=step, since=0)
        return replace(self, since=self.since + 1)

    def state(self) -> dict[str, Any]:
        """What a checkpoint's state is to hold; nothing before the first validation that gave a number."""
        return {"validation": asdict(self)} if self.step else {}


def kept_step(state: dict[str, Any]) -> int | None:
    """Step of the best checkpoint by the state of the newest, if it is kept."""
    validation = state.get("validation", {})
    return int(validation["step"]) if validation.get("keep") else None


def chosen(checkpoints: Path) -> Path | None:
    """The checkpoint that stands for a run: the best where it is kept, else the newest."""
    newest = latest(checkpoints)
    if newest is None:
        return None
    step = kept_step(Manifest.read(newest).state)
    best = newest if step is None else checkpoints / step_name(step)
    return best if (best / "manifest.json").is_file() else newest


def validated_tasks(config: RunConfig, data: Data) -> tuple[str, ...]:
    """Tasks of the mixture that have rows in the split; UserError if none has, or not the metric's."""
    split, metric = config.validation.split, config.validation.metric
    there = data.index.rows(split)
    tasks = tuple(task for task in config.data.mixture if there.get(task))
    lacking = metric.removeprefix("loss/")
    if not tasks or (metric != "loss" and lacking not in tasks):
        what = f"task '{lacking}'" if tasks else "the mixture's tasks"
        raise UserError(
            f"no rows of {what} in split '{split}' to validate on", str(data.path), "set validation.split, or every = 0"
        )
    return tasks
