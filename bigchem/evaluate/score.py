"""A file of predictions -> its scores."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bigchem.chemistry import dotted, try_parse
from bigchem.errors import UserError
from bigchem.evaluate.predictions import AS_IT_LOOKS, Examples, ReadAs, read_examples
from bigchem.evaluate.protocol import Score, score_task
from bigchem.progress import Progress
from bigchem.tasks import TASKS, check_labelled

FORWARD_BEAMS = 5
"""Of the forward model's search, as `predict` has by default."""
_LOOKED_AT = 100
"""Texts that are parsed to see whether a file is of its task."""


def score_file(
    task: str,
    path: str | Path,
    how: ReadAs = AS_IT_LOOKS,
    *,
    forward_model: Path | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    workers: int = 1,
) -> list[Score]:
    """Scores a file of predictions: examples_of, then protocol.score_task.

    forward_model: a consolidated model's folder, for the round trip of retrosynthesis, by FORWARD_BEAMS beams.
    UserError with any other task.
    """
    if forward_model is not None:
        check_round_trip(task, path, how)
    read = examples_of(task, path, how)
    for what, count in read.counts.items():
        Progress().say(f"{path}: {count} {what}")
    sources, references, predictions = read.sources, read.single(str(path)), read.predictions
    made = None if forward_model is None else _products(forward_model, [ranked[0] for ranked in predictions])
    return score_task(
        task, sources, references, predictions, products=made, bootstrap=bootstrap, seed=seed, workers=workers
    )


def examples_of(task: str, path: str | Path, how: ReadAs = AS_IT_LOOKS) -> Examples:
    """read_examples of a file of this task. UserError where references have to be molecules and none is: a file of
    another task, most likely; where most predictions are several in one; or for no task."""
    check_labelled(task, "task")
    read = read_examples(path, how)
    first = [reference for several in read.references for reference in several if reference][:_LOOKED_AT]
    if TASKS[task].target_domain == "chemistry" and first and not any(try_parse(dotted(text)) for text in first):
        what = f"no target is a molecule, of the first {len(first)}; the first is '{first[0][:40]}'"
        raise UserError(what, str(path), f"is this a file of {task}?")
    joined = sum(";" in ranked[0] and "|" not in ranked[0] for ranked in read.predictions)
    if TASKS[task].target_domain == "chemistry" and how.separator is None and 2 * joined > len(read.predictions):
        what = f"{joined} of {len(read.predictions)} predictions hold ';': are they several in one?"
        raise UserError(what, str(path), "--separator ';' if so, else --separator none")
    return read


def check_round_trip(task: str, path: str | Path, how: ReadAs = AS_IT_LOOKS) -> None:
    """UserError where a forward model would be of no use: before a run is consolidated for it."""
    if task != "retrosynthesis":
        raise UserError(f"goes with retrosynthesis, not with {task}", "--forward-model")
    examples_of(task, path, how)


def _products(forward_model: Path, best: list[str]) -> list[str]:
    from bigchem.config import EvaluateConfig
    from bigchem.evaluate.round_trip import products

    return products(forward_model, best, EvaluateConfig(num_beams=FORWARD_BEAMS), None, Progress())


def table(scores: list[Score]) -> Table:
    """The scores for a terminal, a section per task; a column for notes where there are any."""
    out = Table("task", "metric")
    for name in ("value", "95 % interval", "n"):
        out.add_column(name, justify="right")
    out.add_column("definition")
    noted = any(score.note for score in scores)
    if noted:
        out.add_column("note")
    for score, following in zip(scores, [*scores[1:], None], strict=True):
        value = "n/a" if score.value is None else f"{score.value:.4f}"
        interval = "" if score.low is None or score.high is None else f"{score.low:.4f} .. {score.high:.4f}"
        last = following is None or following.task != score.task
        out.add_row(
            score.task,
            score.metric,
            value,
            interval,
            str(score.n),
            score.definition,
            *([escape(score.note)] if noted else []),
            end_section=last,
        )
    return out


def to_json(scores: list[Score]) -> list[dict[str, Any]]:
    """The scores as JSON values, one object each, keys as in Score; n/a is null."""
    return [asdict(score) for score in scores]
