"""What a page says about runs, as plain data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from bigchem.base import json_file
from bigchem.base.printable import number_of, printable
from bigchem.base.progress import duration
from bigchem.config import tokens_of
from bigchem.launch.runs.history import Attempt
from bigchem.launch.runs.status import RunStatus
from bigchem.show.record import RunRecord, differing
from bigchem.train.checkpoint import store

ScoreKey = tuple[str, str, str]
"""Split, task, metric."""
LONGEST = 300
"""Characters of a text that is shown."""


def to_json(record: RunRecord) -> dict[str, Any]:
    """What the page of a run says, as plain data; the curves are in metrics.jsonl."""
    best = record.best
    return {
        **asdict(record.status),
        "facts": facts_of(record),
        "configuration": record.changed(),
        "last": {name: json_file.number(value) for name, value in record.rows[-1].items()} if record.rows else None,
        "best_validation": None if best is None else {"step": best[0], "loss": best[1]},
        "attempts": [asdict(one) for one in record.attempts],
        "events": record.events,
        "samples": record.samples,
        "scores": record.scores,
        "damage": record.damage,
    }


def comparison_to_json(records: Sequence[RunRecord]) -> dict[str, Any]:
    """The same for several runs, with the fields in which they differ."""
    labels = labels_of(records)
    return {
        "runs": {label: to_json(record) for label, record in zip(labels, records, strict=True)},
        "differing": {name: dict(zip(labels, values, strict=True)) for name, values in differing(records).items()},
    }


def labels_of(records: Sequence[RunRecord]) -> list[str]:
    """The runs' names, or their paths where two have the same name."""
    twice = {name for name, count in Counter(record.name for record in records).items() if count > 1}
    return [printable(record.run_dir) if record.name in twice else record.name for record in records]


def facts_of(record: RunRecord) -> dict[str, str]:
    """What a reader wants to know first about a run."""
    config, model, status = record.config, record.model, record.status
    best = record.best
    found: dict[str, str | None] = {"state": status.state + (f": {status.reason}" if status.reason else "")}
    if config is not None:
        origin = f"weights of {config.model.init_from}" if config.model.init_from else config.model.preset
        size = _count(model.get("parameters"), "parameters")
        inner = _count(model.get("non_embedding_parameters"), "without embeddings")
        mixture = config.data.mixture
        total = sum(mixture.values()) or 1.0
        found |= {
            "model": ", ".join(filter(None, (origin, size, inner))),
            "mixture": ", ".join(f"{task} {weight / total:.0%}" for task, weight in mixture.items()) or None,
            "length": f"{config.train.steps:,} steps, {tokens_of(config):,.0f} tokens as planned",
            "batch": f"{config.data.global_tokens:,} tokens, at most {config.data.micro_tokens:,} per rank at a time",
            "optimizer": f"{config.optimizer.kind}, peak rate {config.optimizer.lr:g}, {config.schedule.kind} after "
            f"{number_of('step', config.schedule.warmup_steps)} of warm-up",
            "seed": str(config.seed),
            "ZeRO and precision": f"{config.train.ds_config}, {config.train.precision}",
            "data": config.data.path,
        }
    if isinstance(ranks := model.get("ranks"), int):
        found["ran on"] = f"{number_of('rank', ranks)}, {model.get('device', 'unknown device')}"
    found["used"] = _used(status)
    found["best validation loss"] = None if best is None else f"{best[1]:.4f} after step {best[0]:,}"
    return {name: printable(value) for name, value in found.items() if value}


def samples_of(record: RunRecord) -> dict[str, list[dict[str, Any]]]:
    """Sample predictions by task: each example with its prediction at its last validation, and at its first if that
    differs."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in record.samples:
        example = found.setdefault(row["task"], {}).setdefault(row["source"], {"first": row})
        example["last"] = row
    cut = {"limit": LONGEST}
    return {
        task: [
            {
                "source": printable(source, **cut),
                "reference": printable(one["last"].get("reference", ""), **cut),
                "step": one["last"]["step"],
                "prediction": printable(one["last"]["prediction"], **cut),
                "right": one["last"]["prediction"] == one["last"].get("reference"),
                "first_step": one["first"]["step"],
                "first": printable(one["first"]["prediction"], **cut) if one["first"] is not one["last"] else "",
            }
            for source, one in examples.items()
        ]
        for task, examples in found.items()
    }


def scores_of(records: Sequence[RunRecord], *, brief: bool) -> dict[ScoreKey, list[dict[str, Any] | None]]:
    """Each run's score by split, task and metric. brief: losses and headline metrics."""
    tables = [
        {
            (str(record.results.get("split")), str(row["task"]), str(row["metric"])): row
            for row in record.scores
            if not brief or record.is_brief(row)
        }
        for record in records
    ]
    return {
        key: [table.get(key) for table in tables] for key in dict.fromkeys(key for table in tables for key in table)
    }


def with_losses(record: RunRecord) -> list[tuple[Attempt, int]]:
    """Attempts with the number of steps that the next one repeats."""
    attempts = record.attempts
    lost = [max(0, one.to_step - after.from_step) for one, after in pairwise(attempts)]
    return [*zip(attempts, [*lost, 0], strict=False)]


def links_of(record: RunRecord, folder: Path) -> list[tuple[str, list[tuple[str, str]]]]:
    """Files and folders of the run that exist, by what they are, relative to the page's folder."""
    run = record.run_dir
    checkpoints = [
        (f"step {store.step_of(path):,}{', exported' if path == record.exported else ''}", path)
        for path in record.checkpoints
    ]
    logs = sorted((run / "logs").glob("rank*.log"), key=lambda path: (len(path.name), path.name))
    groups: dict[str, list[tuple[str, Path]]] = {
        "checkpoints": checkpoints,
        "logs": [(path.stem.replace("rank", "rank "), path) for path in logs],
        "results": [(name, run / "results" / name) for name in ("table.md", "results.json", "predictions")],
        "model": [("model", run / "model")],
        "profiles": [(path.name, path) for path in sorted((run / "profile").glob("step_*"))],
        "records": [
            (name, run / name)
            for name in ("config.toml", "metrics.jsonl", "events.jsonl", "samples.jsonl", "git.txt", "environment.json")
        ],
    }
    found = [
        (what, [(name, relative(path, folder)) for name, path in files if path.exists()])
        for what, files in groups.items()
    ]
    return [(what, files) for what, files in found if files]


def relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _used(status: RunStatus) -> str | None:
    if not status.seconds:
        return None
    share = "" if status.efficiency is None else f", {status.efficiency:.0%} of it in training"
    return f"{duration(status.seconds)}, {status.hours:.3g} {status.hours_of}-hours{share}"


def _count(value: object, noun: str) -> str | None:
    return f"{value:,} {noun}" if isinstance(value, int) else None
