"""How much a model minds the spelling of its input: the same molecules, spelled otherwise, predicted and scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bigchem import strict
from bigchem.config import EvaluateConfig
from bigchem.data.shards import Data
from bigchem.errors import UserError, unknown
from bigchem.evaluate.respelled import Respelled
from bigchem.evaluate.run import Subject, evaluate
from bigchem.evaluate.spellings import SPELLINGS
from bigchem.progress import Progress
from bigchem.tasks import TASKS

SCHEMA = 1
GIVEN = "given"
"""The column of what the data has."""
_MOLREFLECT = (
    "METEOR of Text+Chem T5 augmented on ChEBI-20 by MolReFlect: .648 as given, .514 canonical, .546 kekule, .336 "
    "explicit-h."
)


def parse_spellings(text: str) -> tuple[str, ...]:
    """The spellings of a comma-separated list; UserError for an unknown one or for none."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in SPELLINGS:
            unknown("spelling", name, list(SPELLINGS), "--probe")
    if not names:
        raise UserError("no spelling", "--probe", f"known: {', '.join(SPELLINGS)}")
    return names


def probe(
    subject: Subject, config: EvaluateConfig, spellings: Sequence[str], *, seed: int = 0, progress: Progress
) -> Path:
    """Evaluates every task whose input is a molecule with each spelling, into OUT/probe/SPELLING as `evaluate` does and
    with its resuming; then writes OUT/probe.json and OUT/probe.md beside the results as given. The path of the latter.

    seed: of the spelling `random`. UserError if no task has molecules for input, or if there are no results as given.
    """
    if not isinstance(subject.data, Data):
        raise TypeError("a probe of a probe")
    tasks = tuple(task for task in subject.tasks if TASKS[task].source_domain == "chemistry")
    if not tasks:
        raise UserError("no task whose input is a molecule", "--probe", f"there is {', '.join(subject.tasks)}")
    given = _read(subject.out / "results.json")
    results = {GIVEN: given}
    changed: dict[str, dict[str, Any]] = {}
    for spelling in spellings:
        data = Respelled(subject.data, spelling, seed, config.max_rows)
        changed[spelling] = {}
        for task in tasks:
            rows = data.split(config.split, task)
            changed[spelling][task] = {"rows": len(rows), "changed": rows.changed, "unread": rows.unread}
            progress.say(f"{task}, {spelling}: {rows.changed} of {len(rows)} sources change, {rows.unread} unread")
        one = replace(subject, data=data, tasks=tasks, out=subject.out / "probe" / spelling)
        results[spelling] = _read(evaluate(one, config, progress=progress))
    table = {
        "schema": SCHEMA,
        "model": given["model"],
        "data_fingerprint": given["data_fingerprint"],
        "split": given["split"],
        "decoding": given["decoding"],
        "seed": seed,
        "sources": changed,
        "metrics": [
            {"spelling": name, **metric}
            for name, one in results.items()
            for metric in one["metrics"]
            if metric["task"] in tasks
        ],
    }
    strict.write_atomically(subject.out / "probe.json", json.dumps(table, indent=1))
    path = subject.out / "probe.md"
    strict.write_atomically(path, markdown(table["metrics"], "captioning" in tasks))
    return path


def markdown(metrics: Sequence[dict[str, Any]], captions: bool = False) -> str:
    """A row per metric, a column per spelling, as given first. captions: the published probe is told below."""
    names = list(dict.fromkeys(metric["spelling"] for metric in metrics))
    values = {(m["task"], m["metric"], m["spelling"]): m["value"] for m in metrics}
    head = f"| task | metric | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}\n"
    rows = []
    for task, metric in dict.fromkeys((m["task"], m["metric"]) for m in metrics):
        found = [values.get((task, metric, name)) for name in names]
        if any(value is not None for value in found):
            cells = " | ".join("n/a" if value is None else f"{value:.4f}" for value in found)
            rows.append(f"| {task} | {metric} | {cells} |\n")
    return head + "".join(rows) + (f"\n{_MOLREFLECT}\n" if captions else "")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError("no results as given to compare with", str(path), "evaluate without --probe first")
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table
