"""What a run folder says about its run, at any time: unfinished, failed and damaged runs too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from bigchem.base import json_file, jsonl, toml
from bigchem.base.errors import UserError
from bigchem.base.json_file import RecordError
from bigchem.base.masking import mask_values
from bigchem.config import RunConfig
from bigchem.launch.runs import history
from bigchem.launch.runs.history import Attempt
from bigchem.launch.runs.status import RunStatus, statuses
from bigchem.train.checkpoint import store
from bigchem.train.checkpoint.best import chosen

Row = dict[str, float]


@dataclass(frozen=True)
class RunRecord:
    """The records of one run. rows: of metrics.jsonl, with NaN for what was not finite. open: the attempt that has not
    ended, if any. model, results: model.json and results.json, empty if there are none. damage: files that could not be
    read whole, which the page names."""

    run_dir: Path
    status: RunStatus
    config: RunConfig | None
    model: dict[str, Any]
    rows: list[Row]
    ended: list[Attempt]
    open: list[Attempt]
    events: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    results: dict[str, Any]
    damage: list[str]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.status.run

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts. One that is still open has no end, and lasted until the run's last sign of life."""
        known = {one.attempt for one in self.ended}
        return [*self.ended, *(self._so_far(one) for one in self.open if one.attempt not in known)]

    def _so_far(self, begun: Attempt) -> Attempt:
        last = self.rows[-1] if self.rows and self.rows[-1].get("time", 0.0) >= begun.time else {}
        step = max(begun.from_step, self.status.step)
        return replace(begun, to_step=step, seconds=max(0.0, last.get("time", begun.time) - begun.time))

    @cached_property
    def tasks(self) -> list[str]:
        """Tasks with a loss, in the order of the mixture."""
        mixture = [] if self.config is None else [*self.config.data.mixture]
        found = dict.fromkeys(name.partition("/")[2] for row in self.rows for name in row if "/" in name)
        return [*(task for task in mixture if task in found), *(task for task in found if task not in mixture)]

    def series(self, field: str) -> list[tuple[float, float]]:
        """A field of the rows that have it, by step; NaN where it was not finite."""
        return [(row["step"], row[field]) for row in self.rows if field in row]

    @property
    def best(self) -> tuple[int, float] | None:
        """The lowest validation loss, and its step."""
        found = [(value, int(step)) for step, value in self.series("valid_loss") if math.isfinite(value)]
        return None if not found else (min(found)[1], min(found)[0])

    @property
    def scores(self) -> list[dict[str, Any]]:
        """The scores of results.json over all examples that have a value."""
        rows = self.results.get("metrics")
        objects = [row for row in (rows if isinstance(rows, list) else []) if isinstance(row, dict)]
        return [
            {"n": "", "note": "", "low": None, "high": None, **row}
            for row in objects
            if {"task", "metric"} <= row.keys() and not row.get("group") and _number(row.get("value"))
        ]

    def is_brief(self, row: Mapping[str, Any]) -> bool:
        """Whether a score is a loss, or by its task's headline metric or a variant of that."""
        tasks = self.results.get("tasks")
        about = tasks.get(row["task"]) if isinstance(tasks, dict) else None
        headline = str(about.get("headline")) if isinstance(about, dict) else "loss"
        return row["metric"] == "loss" or row["metric"] == headline or str(row["metric"]).startswith(f"{headline}_")

    @property
    def checkpoints(self) -> list[Path]:
        """Published checkpoints, oldest first."""
        return sorted(store.published(self.run_dir / "checkpoints"))

    @property
    def exported(self) -> Path | None:
        """The checkpoint that an export takes: the best one if the run keeps it, else the newest."""
        with suppress(UserError, OSError):
            return chosen(self.run_dir / "checkpoints")
        return None

    def changed(self) -> dict[str, Any]:
        """Fields of the configuration that are not the defaults, with secrets masked."""
        given, default = _flat(self.config), _flat(RunConfig())
        own = {name: value for name, value in given.items() if name not in ("name", "runs")}
        return {name: value for name, value in own.items() if name not in default or value != default[name]}


def read_records(run_dirs: Sequence[Path]) -> list[RunRecord]:
    """The records of run folders. UserError for a folder that is none."""
    for run_dir in run_dirs:
        if not (run_dir / "config.toml").is_file():
            raise UserError("no run folder: it has no config.toml", str(run_dir), "bigchem status lists runs")
    return [_read(run_dir, status) for run_dir, status in zip(run_dirs, statuses(run_dirs), strict=True)]


def differing(records: Sequence[RunRecord]) -> dict[str, list[Any]]:
    """Fields of the configuration in which runs differ, with each run's value; None where it has none. Not the run's
    name and folder."""
    tables = [_flat(record.config) for record in records]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = {name: [table.get(name) for table in tables] for name in names if name not in ("name", "runs")}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def _read(run_dir: Path, status: RunStatus) -> RunRecord:
    damage: list[str] = [] if status.damage is None else [status.damage]

    def rows_of(name: str, needs: jsonl.Needs) -> list[dict[str, Any]]:
        try:
            found = jsonl.read(run_dir / name, needs)
        except OSError as error:
            damage.append(f"{name} cannot be read: {error.strerror or error}")
            return []
        damage.extend([f"{name}: {found.damage}"] if found.damage else [])
        return found.rows

    def table_of(name: str) -> dict[str, Any]:
        try:
            return json_file.load_object(run_dir / name)
        except FileNotFoundError:
            return {}
        except (OSError, RecordError) as error:
            damage.append(f"{name}: {error.what if isinstance(error, RecordError) else error.strerror}")
            return {}

    config: RunConfig | None = None
    try:
        config = toml.load(RunConfig, run_dir / "config.toml")
    except UserError as error:
        damage.append(f"config.toml: {error.what}")
    ended, opened = history.read(run_dir), history.open_attempt(run_dir)
    return RunRecord(
        run_dir=run_dir,
        status=status,
        config=config,
        model=table_of("model.json"),
        rows=[_numbers(row) for row in rows_of("metrics.jsonl", {"step": int})],
        ended=ended,
        open=opened,
        events=rows_of("events.jsonl", {"time": float, "step": int, "kind": str, "action": str, "detail": str}),
        samples=rows_of("samples.jsonl", {"step": int, "task": str, "source": str, "prediction": str}),
        results=table_of("results/results.json"),
        damage=list(dict.fromkeys(damage)),
    )


def _numbers(row: dict[str, Any]) -> Row:
    values = {name: json_file.number(value) for name, value in row.items()}
    return {name: math.nan if value is None else value for name, value in values.items()}


def _number(value: object) -> bool:
    return json_file.number(value) is not None


def _flat(config: RunConfig | None) -> dict[str, Any]:
    if config is None:
        return {}
    found: dict[str, Any] = mask_values(toml.flat(config.model_dump(mode="json")))
    return found
