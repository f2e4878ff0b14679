"""The best validation of a run so far, stored in its checkpoints. Pure, except for reading those."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.step_plan import mixture_of
from bigchem.data.storage.shards import Data
from bigchem.train.checkpoint.store import Manifest, latest, step_name


@dataclass(frozen=True)
class Best:
    """The lowest value of a metric. step: where it was reached; 0: nowhere yet. since: validations after it.

    keep: retain its checkpoint, and export that one.
    """

    metric: str
    keep: bool
    value: float = math.inf
    step: int = 0
    since: int = 0

    @staticmethod
    def of(config: RunConfig, state: dict[str, Any]) -> Best:
        """The best in a checkpoint's state; a fresh one if it has none, or one by another metric."""
        fresh = Best(config.validation.metric, config.validation.keep_best)
        saved = state.get("validation", {})
        return replace(fresh, **{**saved, "keep": fresh.keep}) if saved.get("metric") == fresh.metric else fresh

    def after(self, step: int, value: float) -> Best:
        """Updated with one more validation. An equal value or NaN is no improvement."""
        if value < self.value:
            return replace(self, value=value, step=step, since=0)
        return replace(self, since=self.since + 1)

    def state(self) -> dict[str, Any]:
        """The entry for a checkpoint's state; empty before the first validation with a finite value."""
        return {"validation": asdict(self)} if self.step else {}


def best_step(state: dict[str, Any]) -> int | None:
    """Step of the best checkpoint, from the newest one's state; None if it is not retained."""
    validation = state.get("validation", {})
    return int(validation["step"]) if validation.get("keep") else None


def chosen(checkpoints: Path) -> Path | None:
    """The checkpoint to export: the best if it is retained, else the newest; None without checkpoints."""
    newest = latest(checkpoints)
    if newest is None:
        return None
    step = best_step(Manifest.read(newest).state)
    best = newest if step is None else checkpoints / step_name(step)
    return best if (best / "manifest.json").is_file() else newest


def validated_tasks(config: RunConfig, data: Data) -> tuple[str, ...]:
    """Tasks of the mixture with rows in the split; UserError if there are none, or the metric's task has none."""
    split, metric = config.validation.split, config.validation.metric
    rows = data.index.rows(split)
    tasks = tuple(task for task in mixture_of(config.data, data) if rows.get(task))
    lacking = metric.removeprefix("loss/")
    if not tasks or (metric != "loss" and lacking not in tasks):
        what = f"task '{lacking}'" if tasks else "the mixture's tasks"
        raise UserError(
            f"no rows of {what} in split '{split}' to validate on", str(data.path), "set validation.split, or every = 0"
        )
    return tasks
