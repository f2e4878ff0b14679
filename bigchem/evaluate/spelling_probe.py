"""How sensitive a model is to the spelling of its input: the same molecules are respelled, predicted and scored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bigchem.base import atomic, json_file
from bigchem.base.errors import UserError, unknown
from bigchem.base.printable import markdown_table
from bigchem.base.progress import Progress
from bigchem.chemistry.spellings import SPELLINGS
from bigchem.config import EvaluateConfig
from bigchem.data.storage.shards import Data
from bigchem.evaluate.generation.respelled import Respelled, RespelledRows
from bigchem.evaluate.run import evaluate
from bigchem.evaluate.subject import Subject
from bigchem.tasks import CHEMISTRY, Task

SCHEMA = 1
GIVEN = "given"
"""The column of the original spelling."""
_MOLREFLECT = (
    "METEOR of Text+Chem T5 augmented on ChEBI-20 by MolReFlect: .648 as given, .514 canonical, .546 kekule, .336 "
    "explicit-h."
)


def parse_spellings(text: str) -> tuple[str, ...]:
    """The spellings in a comma-separated list; UserError for an unknown one or an empty list."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in SPELLINGS:
            unknown("spelling", name, list(SPELLINGS), "--probe")
    if not names:
        raise UserError("no spelling", "--probe", f"known: {', '.join(SPELLINGS)}")
    return names


def respelled(subject: Subject, config: EvaluateConfig, spelling: str, seed: int) -> Subject:
    """The tasks whose input is a molecule, in this spelling, into OUT/probe/SPELLING.

    seed: for the spelling `random`. UserError if no task has molecules as input.
    """
    if not isinstance(subject.data, Data):
        raise TypeError("a probe of a probe")
    tasks = tuple(task for task in subject.tasks if _is_spelled(subject.data.tasks[task]))
    if not tasks:
        raise UserError("no task has molecules as input", "--probe", f"there is {', '.join(subject.tasks)}")
    data = Respelled(subject.data, spelling, seed, config.max_rows)
    return replace(subject, data=data, tasks=tasks, out=subject.out / "probe" / spelling)


def _is_spelled(task: Task) -> bool:
    """Whether a task's sources can be respelled: data folders hold other fields of a prompt as tokens only."""
    return task.source_domain in CHEMISTRY and task.source_domain != "reaction" and not task.fields


def probe(
    subject: Subject, config: EvaluateConfig, spellings: Sequence[str], *, seed: int = 0, progress: Progress
) -> Path:
    """Evaluates each spelling with `evaluate`, which resumes, then compares. Returns the path of probe.md.

    UserError if no task has molecules as input, or without results of the original spelling.
    """
    subjects = {spelling: respelled(subject, config, spelling, seed) for spelling in spellings}
    _read(subject.out / "results.json")
    for spelling, respelling in subjects.items():
        for task, found in _changed(respelling, config.split).items():
            counts = f"{found['changed']} of {found['rows']} sources changed, {found['unread']} not parsed"
            progress.say(f"{task}, {spelling}: {counts}")
        evaluate(respelling, config, progress=progress)
    return compare(subject, config, subjects, seed)


def compare(subject: Subject, config: EvaluateConfig, subjects: Mapping[str, Subject], seed: int) -> Path:
    """Writes OUT/probe.json and OUT/probe.md from the results of the original spelling and of the respelled subjects,
    which must exist. Returns the path of probe.md."""
    given = _read(subject.out / "results.json")
    results = {GIVEN: given} | {spelling: _read(one.out / "results.json") for spelling, one in subjects.items()}
    tasks = {task for one in subjects.values() for task in one.tasks}
    table = {
        "schema": SCHEMA,
        "model": given["model"],
        "data_fingerprint": given["data_fingerprint"],
        "split": given["split"],
        "decoding": given["decoding"],
        "seed": seed,
        "sources": {spelling: _changed(one, config.split) for spelling, one in subjects.items()},
        "metrics": [
            {"spelling": name, **metric}
            for name, one in results.items()
            for metric in one["metrics"]
            if metric["task"] in tasks
        ],
    }
    atomic.write_atomically(subject.out / "probe.json", json.dumps(table, indent=1))
    path = subject.out / "probe.md"
    atomic.write_atomically(
        path, markdown(table["metrics"], any(subject.data.tasks[task].family == "caption" for task in tasks))
    )
    return path


def _changed(subject: Subject, split: str) -> dict[str, dict[str, int]]:
    """For each task of a respelled subject: rows, rows whose source text changed, and rows RDKit cannot parse."""
    rows = {task: subject.data.split(split, task) for task in subject.tasks}
    return {
        task: {"rows": len(one), "changed": one.changed, "unread": one.unread}
        for task, one in rows.items()
        if isinstance(one, RespelledRows)
    }


def markdown(metrics: Sequence[dict[str, Any]], captions: bool = False) -> str:
    """A row per metric, a column per spelling, the original first; n is the original's. Metrics that are n/a everywhere
    are listed below. captions: append the published probe."""
    names = list(dict.fromkeys(metric["spelling"] for metric in metrics))
    values = {(m["task"], m["metric"], m["spelling"]): m["value"] for m in metrics}
    counts = {(m["task"], m["metric"]): m["n"] for m in reversed(metrics)}
    rows, missing = [], []
    for task, metric in dict.fromkeys((m["task"], m["metric"]) for m in metrics):
        found = [values.get((task, metric, name)) for name in names]
        if all(value is None for value in found):
            missing.append(f"{task} {metric}")
            continue
        shown = ("n/a" if value is None else f"{value:z.4f}" for value in found)
        rows.append([task, metric, f"{counts[task, metric]:,}", *shown])
    absent = f"\nn/a (reasons in table.md): {', '.join(missing)}.\n" if missing else ""
    return markdown_table(("task", "metric", "n", *names), rows) + absent + (f"\n{_MOLREFLECT}\n" if captions else "")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError("no results of the original spelling", str(path), "evaluate without --probe first")
    return json_file.load_object(path, hint="evaluate again without --probe")
