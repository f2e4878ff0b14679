"""A file of predictions -> its scores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bigchem.base.errors import UserError
from bigchem.base.printable import number_of
from bigchem.base.progress import Progress
from bigchem.chemistry import dotted, try_parse
from bigchem.evaluate.prediction_files.answers import as_scored
from bigchem.evaluate.prediction_files.columns import LOSS_AND_TOKENS
from bigchem.evaluate.prediction_files.tables import AS_IT_LOOKS, Examples, ReadAs, read_examples
from bigchem.evaluate.protocol.pairs import Pairs
from bigchem.evaluate.protocol.score_task import Score, score_task
from bigchem.evaluate.reaction_classes import classes_of
from bigchem.evaluate.training_set import read_training_set
from bigchem.tasks import CHEMISTRY, Task

FORWARD_BEAMS = 5
"""Beams of the forward model: the default of `predict`."""
_CHECKED = 100
"""Texts parsed to check that a file fits its task."""


def score_file(
    task: Task,
    path: str | Path,
    how: ReadAs = AS_IT_LOOKS,
    *,
    forward_model: Path | None = None,
    training: Path | None = None,
    classes: Path | None = None,
    similarity: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    workers: int = 1,
) -> list[Score]:
    """Scores a file of predictions: examples_of, then score_task.

    forward_model: a consolidated model's folder, for the round trip of retrosynthesis, with FORWARD_BEAMS beams.
    training: for the novelty of generation, see read_training_set. classes: see classes_of. UserError if the task does
    not use them.
    """
    if training is not None and task.family != "molecule":
        raise UserError(f"needs a task that generates molecules, not {task.name}", "--train-set")
    if forward_model is not None:
        check_round_trip(task, path, how)
    read = examples_of(task, path, how)
    print_counts(read, path)
    sources, references, predictions = read.sources, read.references, read.predictions
    made = None if forward_model is None else _products(task, forward_model, predictions)
    scores = score_task(
        task,
        sources,
        references,
        predictions,
        products=made,
        training=None if training is None else read_training_set(training),
        classes=None if classes is None else classes_of(classes, task, sources, [first for first, *_ in references]),
        similarity=similarity,
        label_log_probabilities=label_log_probabilities(task, read, path),
        losses=losses_of(read, path),
        bootstrap=bootstrap,
        seed=seed,
        workers=workers,
    )
    return [*scores, *counted(task.name, read)]


READING = "reading/count-v1"
"""Definition of the rows of `counted`."""


def counted(task: str, read: Examples) -> list[Score]:
    """One row per kind of repair made while reading: its count, and what it was."""
    return [
        Score(task, "reading", float(count), None, None, len(read.sources), READING, what)
        for what, count in read.counts.items()
    ]


def print_counts(read: Examples, path: str | Path) -> None:
    """Reports the repairs made while reading."""
    for what, count in read.counts.items():
        side, colon, repair = what.partition("s: ")
        Progress().say(f"{path}: {number_of(side, count)}: {repair}" if colon else f"{path}: {count} {what}")


def examples_of(task: Task, path: str | Path, how: ReadAs = AS_IT_LOOKS) -> Examples:
    """read_examples, then as_scored. UserError if references should be molecules and none parses,
    which suggests a file of another task; or if most predictions look like several joined by ';'."""
    how = replace(how, labels=frozenset(task.labels if task.target_domain == "label" else ()))
    read = as_scored(task, read_examples(path, how), how.strip)
    first = [reference for several in read.references for reference in several if reference][:_CHECKED]
    if task.target_domain in CHEMISTRY and first and not any(try_parse(dotted(text)) for text in first):
        what = f"no molecule among the first {number_of('target', len(first))}; the first is '{first[0][:40]}'"
        raise UserError(what, str(path), f"is this a file of {task.name}?")
    joined = sum(";" in ranked[0] and "|" not in ranked[0] for ranked in read.predictions)
    if task.target_domain in CHEMISTRY and how.separator is None and 2 * joined > len(read.predictions):
        what = f"{joined} of {len(read.predictions)} predictions contain ';': are they several in one?"
        raise UserError(what, str(path), "--separator ';' if so, else --separator none")
    return read


def pairs_of(task: Task, read: Examples, path: str | Path, workers: int, similarity: bool = False) -> Pairs:
    """What the metrics of the examples of a file are computed from, without what is beside the file."""
    return Pairs(
        read.sources,
        read.references,
        read.predictions,
        workers=workers,
        similar=similarity,
        labels=task.labels,
        label_log_probabilities=label_log_probabilities(task, read, path),
        losses=losses_of(read, path),
    )


def label_log_probabilities(task: Task, read: Examples, path: str | Path) -> NDArray[np.float64] | None:
    """[examples, labels] of a task with labels, if the file has them. UserError if it has another number of labels."""
    found = read.label_log_probabilities
    if found is None or not task.labels:
        return None
    if len(found[0]) != len(task.labels):
        what = f"{len(found[0])} log-probabilities an example; {task.name} has {len(task.labels)} labels"
        raise UserError(what, str(path), f"in this order: {', '.join(task.labels)}")
    return np.array(found)


def losses_of(read: Examples, path: str | Path) -> NDArray[np.float64] | None:
    """[examples, 2] summed cross-entropy and tokens of each target, if the file has them. UserError for other
    numbers."""
    if read.losses is None:
        return None
    for number, pair in enumerate(read.losses, 1):
        if len(pair) != 2 or pair[1] < 1 or pair[1] % 1:
            what = f"example {number}: {LOSS_AND_TOKENS} is {pair}"
            raise UserError(what, str(path), "write the summed cross-entropy and the number of tokens: [12.5, 17]")
    return np.array(read.losses)


def check_round_trip(task: Task, path: str | Path, how: ReadAs = AS_IT_LOOKS) -> None:
    """UserError if the task has no round trip or the file is unusable: call before consolidating a run for it."""
    if task.inverse is None or task.target_domain != "reactants":
        what = f"needs a task that predicts reactants and names its inverse, not {task.name}"
        raise UserError(what, "--forward-model")
    examples_of(task, path, how)


def _products(task: Task, forward_model: Path, predictions: list[list[str]]) -> list[list[str]]:
    from bigchem.config import EvaluateConfig
    from bigchem.evaluate.generation.round_trip import products

    return products(
        forward_model, str(task.inverse), predictions, EvaluateConfig(num_beams=FORWARD_BEAMS), None, Progress()
    )
