"""Metrics of labels: by the label that was written, and by the probabilities of all labels.

A label is its position among the task's labels. References that are none of them (-1) do not count; such predictions
are wrong. Conventions are scikit-learn's unless a docstring says otherwise.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from bigchem.evaluate.metrics.intervals import Statistic, macro, mean_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Fold = Callable[..., Floats]

VALUES = {"0": 0, "1": 1, "no": 0, "yes": 1}
"""What several labels' values are written as."""


def positions(texts: Sequence[str], labels: Sequence[str]) -> Ints:
    """The position of each text among the labels, -1 for none: [texts]. Surrounding white space is ignored."""
    places = {label: place for place, label in enumerate(labels)}
    return np.array([places.get(text.strip(), -1) for text in texts], dtype=np.int64)


def values(texts: Sequence[str], names: Sequence[str]) -> Ints:
    """The value of each named label in texts such as `toxic=1; approved=no`: [texts, names] 0, 1, or -1 for none.

    A name that is written twice with different values has none.
    """
    table = np.full((len(texts), len(names)), -1, dtype=np.int64)
    for row, text in zip(table, texts, strict=True):
        found: dict[str, int] = {}
        for name, value in _written(text):
            found[name] = value if found.get(name, value) == value else -1
        row[:] = [found.get(name, -1) for name in names]
    return table


def undeclared(texts: Sequence[str], names: Sequence[str]) -> int:
    """How many values in such texts are of no label in `names`, or no value at all."""
    return sum(name not in names for text in texts for name, _ in _written(text))


def _written(text: str) -> list[tuple[str, int]]:
    parts = (part.rpartition("=") for part in text.split(";") if part.strip())
    return [(name.strip(), VALUES.get(value.strip(), -1)) for name, _, value in parts]


def accuracy(wanted: Ints, made: Ints) -> Statistic:
    """Share of predictions that are right. wanted, made [examples], here and below."""
    return mean_of(np.where(wanted >= 0, wanted == made, np.nan), kind="share")


def balanced_accuracy(wanted: Ints, made: Ints, count: int) -> Statistic:
    """Mean over the labels among the references of the share of their examples that are right. count: of labels."""
    return _of_counts(wanted, made, count, _mean_recall)


def f1(wanted: Ints, made: Ints, count: int) -> Statistic:
    """F1 of the last of two labels; of more, the mean over those among references or predictions."""
    return _of_counts(wanted, made, count, _f1_of_last if count == 2 else _mean_f1)


def matthews(wanted: Ints, made: Ints, count: int) -> Statistic:
    """Matthews' correlation; for more than two labels Gorodkin's R_K (2004). All foreign predictions are one label.

    0 where all predictions are one label; unlike scikit-learn's, undefined where all references are.
    """
    return _of_counts(wanted, made, count, _matthews)


def _of_counts(wanted: Ints, made: Ints, count: int, fold: Fold) -> Statistic:
    """A statistic of how often each label is right [count], a reference [count] and a prediction [count + 1: the last
    are foreign]."""
    counted = wanted >= 0
    asked = np.eye(count)[wanted] * counted[:, None]
    answered = np.eye(count + 1)[np.where(made >= 0, made, count)] * counted[:, None]
    rows = np.concatenate([asked * answered[:, :count], asked, answered], axis=1)
    return Statistic(rows, partial(fold, count=count), counted)


def _mean_recall(sums: Floats, count: int) -> Floats:
    return _mean_ratio(sums[..., :count], sums[..., count : 2 * count])


def _mean_f1(sums: Floats, count: int) -> Floats:
    return _mean_ratio(2 * sums[..., :count], sums[..., count : 2 * count] + sums[..., 2 * count : 3 * count])


def _f1_of_last(sums: Floats, count: int) -> Floats:
    with np.errstate(invalid="ignore"):
        last = count - 1
        return np.asarray(2 * sums[..., last] / (sums[..., count + last] + sums[..., 2 * count + last]))


def _mean_ratio(parts: Floats, wholes: Floats) -> Floats:
    """Mean over the last axis of parts / wholes where the whole is not 0."""
    with np.errstate(invalid="ignore"):
        present = wholes > 0
        return np.asarray((parts / np.where(present, wholes, 1)).sum(axis=-1) / present.sum(axis=-1))


def _matthews(sums: Floats, count: int) -> Floats:
    right, asked, answered = sums[..., :count], sums[..., count : 2 * count], sums[..., 2 * count :]
    n = asked.sum(axis=-1)
    together = right.sum(axis=-1) * n - (asked * answered[..., :count]).sum(axis=-1)
    spread = [n * n - (side * side).sum(axis=-1) for side in (asked, answered)]
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(spread[1] > 0, together / np.sqrt(spread[0] * spread[1]), 0.0)
    return np.where(spread[0] > 0, found, np.nan)


def log_odds(log_probabilities: Floats) -> Floats:
    """Of each label against all others: [examples, labels]. log_probabilities: the same shape, in any normalisation."""
    table = np.asarray(log_probabilities, dtype=np.float64)
    others = [logsumexp(np.delete(table, place, axis=1), axis=1) for place in range(table.shape[1])]
    return np.asarray(table - np.stack(others, axis=1))


def roc_auc(positive: Ints, scores: Floats) -> Statistic:
    """Area under the ROC curve; undefined unless there are examples of both kinds.

    positive [examples]: 1, 0, or -1 for unknown. scores [examples]: higher means more probably positive.
    """
    return _of_order(positive, scores, _roc_auc)


def average_precision(positive: Ints, scores: Floats) -> Statistic:
    """Area under the precision-recall curve, as average precision: without interpolation. Arguments as roc_auc's."""
    return _of_order(positive, scores, _average_precision)


def one_against_rest(wanted: Ints, log_probabilities: Floats, area: Callable[[Ints, Floats], Statistic]) -> Statistic:
    """An area of the last of two labels; of more, the mean over labels that have examples of both kinds.

    area: roc_auc or average_precision. log_probabilities [examples, labels].
    """
    odds = log_odds(log_probabilities)
    places = range(odds.shape[1]) if odds.shape[1] > 2 else [1]
    return macro([area(np.where(wanted < 0, -1, wanted == place), odds[:, place]) for place in places])


def _of_order(positive: Ints, scores: Floats, fold: Fold) -> Statistic:
    rows = np.stack([positive == 1, positive == 0, scores], axis=1).astype(np.float64)
    return Statistic(rows, fold, positive >= 0, ordered=True)


def _roc_auc(rows: Floats, times: Floats) -> Floats:
    positive, negative = _by_score(rows, times)
    above = np.cumsum(negative, axis=-1) - negative / 2
    with np.errstate(invalid="ignore"):
        lost = (positive * above).sum(axis=-1) / positive.sum(axis=-1) / negative.sum(axis=-1)
    return np.asarray(1 - lost)


def _average_precision(rows: Floats, times: Floats) -> Floats:
    positive, negative = _by_score(rows, times)
    found, shown = np.cumsum(positive, axis=-1), np.cumsum(positive + negative, axis=-1)
    with np.errstate(invalid="ignore"):
        total = (positive * found / np.maximum(shown, 1)).sum(axis=-1) / positive.sum(axis=-1)
    return np.where(negative.sum(axis=-1) > 0, total, np.nan)


def _by_score(rows: Floats, times: Floats) -> tuple[Floats, Floats]:
    """Positive and negative examples at each score, the highest first: [..., scores]."""
    places = np.argsort(-rows[:, 2], kind="stable")
    scores = rows[places, 2]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    positive, negative = (np.add.reduceat((times * rows[:, side])[..., places], starts, axis=-1) for side in (0, 1))
    return positive, negative


def exact_set(wanted: Ints, made: Ints) -> Statistic:
    """Share of examples all of whose known values are right. wanted, made [examples, labels]; -1: unknown."""
    known = wanted >= 0
    right = (~known | (wanted == made)).all(axis=1)
    return mean_of(np.where(known.any(axis=1), right, np.nan), kind="share")
