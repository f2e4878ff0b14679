"""The metrics of one label and of several labels."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bigchem.evaluate.metrics import labels
from bigchem.evaluate.metrics.intervals import Statistic, macro, ratio_of, share_of
from bigchem.evaluate.protocol.metric import Floats, Metric, joined, noted, out_of
from bigchem.evaluate.protocol.pairs import Pairs, UnavailableError

Ints = NDArray[np.int64]


def _labels(pairs: Pairs, fewest: int) -> tuple[str, ...]:
    if len(pairs.labels) < fewest:
        raise UnavailableError("needs the task's labels: `labels` in its record")
    return pairs.labels


def _log_probabilities(pairs: Pairs) -> Floats:
    if pairs.label_log_probabilities is None:
        raise UnavailableError(
            "needs the labels' log-probabilities: bigchem evaluate writes them; a file needs a column or field "
            "label_log_probabilities"
        )
    return pairs.label_log_probabilities


def _positions(pairs: Pairs) -> tuple[Ints, Ints]:
    known = _labels(pairs, 2)
    return labels.positions(pairs.references, known), labels.positions(pairs.best, known)


def _written(pairs: Pairs) -> Statistic:
    return share_of(_positions(pairs)[1] >= 0, _listed(pairs.labels))


def _listed(names: Sequence[str]) -> str:
    return f"labels: {', '.join(names)}" if len(names) <= 10 else f"{len(names)} labels"


def _of_label(
    name: str,
    meaning: str,
    statistic: Callable[[Pairs, Ints, Ints], Statistic],
    undefined: str,
    lowest: float = 0.0,
) -> Metric:
    def compute(pairs: Pairs) -> Statistic:
        wanted, made = _positions(pairs)
        notes = joined(
            out_of(made < 0, "predictions are not a label: counted as wrong"),
            out_of(wanted < 0, "references are not a label: left out"),
        )
        return noted(statistic(pairs, wanted, made), notes)

    return Metric(name, f"{name}/label-v1", meaning, compute, undefined=undefined, lowest=lowest)


def _area(name: str, what: str, area: Callable[[Ints, Floats], Statistic]) -> Metric:
    """Of a curve: from the labels' log-probabilities alone."""

    def compute(pairs: Pairs) -> Statistic:
        wanted = _positions(pairs)[0]
        absent = [label for place, label in enumerate(pairs.labels) if len(pairs.labels) > 2 and place not in wanted]
        notes = joined(
            out_of(wanted < 0, "references are not a label: left out"),
            f"no reference is {' or '.join(absent)}: left out" if absent else "",
        )
        return noted(labels.one_against_rest(wanted, _log_probabilities(pairs), area), notes)

    meaning = (
        f"{what} of the last of two labels, from the log-probabilities of the labels given the source; of more labels, "
        "the mean of each against the rest, over those that some references are and some are not."
    )
    undefined = "undefined: fewer than two different labels among the references"
    return Metric(name, f"{name}/label-v1", meaning, compute, undefined=undefined)


_ROC_AUC = ("roc_auc", "Area under the ROC curve", labels.roc_auc)
_PR_AUC = (
    "pr_auc",
    "Area under the precision-recall curve (average precision, not interpolated)",
    labels.average_precision,
)
_NO_LABEL = "no reference is a label"

LABEL = (
    Metric(
        "valid_labels", "valid_labels/label-v1", "Share of predictions that are one of the task's labels.", _written
    ),
    _of_label(
        "accuracy",
        "Share of predictions that are right.",
        lambda _, wanted, made: labels.accuracy(wanted, made),
        _NO_LABEL,
    ),
    _of_label(
        "balanced_accuracy",
        "Mean over the labels of the share of their examples that are right.",
        lambda p, wanted, made: labels.balanced_accuracy(wanted, made, len(p.labels)),
        _NO_LABEL,
    ),
    _of_label(
        "f1",
        "F1 of the last of two labels; of more, the mean of each label's, over those among references or predictions.",
        lambda p, wanted, made: labels.f1(wanted, made, len(p.labels)),
        "undefined: no reference and no prediction is the last label",
    ),
    _of_label(
        "mcc",
        "Matthews' correlation, for more than two labels Gorodkin's (2004); 0 where all predictions are one label.",
        lambda p, wanted, made: labels.matthews(wanted, made, len(p.labels)),
        "undefined: fewer than two different labels among the references",
        lowest=-1.0,
    ),
    _area(*_ROC_AUC),
    _area(*_PR_AUC),
)


def _tables(pairs: Pairs) -> tuple[Ints, Ints]:
    known = _labels(pairs, 1)
    return labels.values(pairs.references, known), labels.values(pairs.best, known)


def _notes_of_tables(pairs: Pairs, wanted: Ints, made: Ints) -> str:
    foreign = [(side, labels.undeclared(texts, pairs.labels)) for side, texts in _sides(pairs)]
    return joined(
        out_of((made < 0) & (wanted >= 0), "predicted values are missing or unreadable: wrong"),
        out_of(wanted < 0, "reference values are unknown: left out"),
        *(f"{count} values in {side} belong to no label of the task" for side, count in foreign if count),
    )


def _sides(pairs: Pairs) -> tuple[tuple[str, list[str]], tuple[str, list[str]]]:
    return ("references", pairs.references), ("predictions", pairs.best)


def _macro(
    name: str,
    meaning: str,
    statistics: Callable[[Pairs, Ints, Ints], list[Statistic]],
    undefined: str,
    lowest: float = 0.0,
) -> Metric:
    """The mean of a metric of each label."""

    def compute(pairs: Pairs) -> Statistic:
        wanted, made = _tables(pairs)
        parts = statistics(pairs, wanted, made)
        missing = [label for label, part in zip(pairs.labels, parts, strict=True) if np.isnan(part.value)]
        without = f"undefined for {', '.join(missing)}: left out" if missing else ""
        return macro(parts, joined(_notes_of_tables(pairs, wanted, made), without))

    full = f"Mean over the task's labels of {meaning}; unknown reference values are left out."
    return Metric(name, f"{name}/macro-v1", full, compute, undefined=undefined, lowest=lowest)


def _each(statistic: Callable[..., Statistic]) -> Callable[[Pairs, Ints, Ints], list[Statistic]]:
    return lambda _, wanted, made: [statistic(*columns) for columns in zip(wanted.T, made.T, strict=True)]


def _each_area(area: Callable[[Ints, Floats], Statistic]) -> Callable[[Pairs, Ints, Ints], list[Statistic]]:
    return lambda p, wanted, _: [area(*columns) for columns in zip(wanted.T, _log_probabilities(p).T, strict=True)]


def _values_read(pairs: Pairs) -> Statistic:
    known, made = (side >= 0 for side in _tables(pairs))
    return noted(ratio_of((known & made).sum(axis=1) * 1.0, known.sum(axis=1) * 1.0), _listed(pairs.labels))


def _exact_set(pairs: Pairs) -> Statistic:
    wanted, made = _tables(pairs)
    return noted(labels.exact_set(wanted, made), _notes_of_tables(pairs, wanted, made))


_UNKNOWN = "no reference value is known"
_CONSTANT = "undefined: no label has both values among the references"

LABELS = (
    Metric(
        "valid_labels",
        "valid_labels/values-v1",
        "Share of known reference values for which the prediction has a value, NAME=0, 1, no or yes.",
        _values_read,
        undefined=_UNKNOWN,
    ),
    _macro("accuracy", "the share of predictions that are right", _each(labels.accuracy), _UNKNOWN),
    _macro(
        "balanced_accuracy",
        "balanced accuracy (the mean of the shares of right predictions among ones and zeros)",
        _each(partial(labels.balanced_accuracy, count=2)),
        _UNKNOWN,
    ),
    _macro("f1", "the F1 of ones", _each(partial(labels.f1, count=2)), "undefined: no value is 1"),
    _macro(
        "mcc",
        "Matthews' correlation, 0 where all predictions of a label are equal",
        _each(partial(labels.matthews, count=2)),
        _CONSTANT,
        lowest=-1.0,
    ),
    *(
        _macro(name, f"{what}, from the log-odds of 1 given the source", _each_area(area), _CONSTANT)
        for name, what, area in (_ROC_AUC, _PR_AUC)
    ),
    Metric(
        "exact",
        "exact/labels-v1",
        "Share of predictions in which every value known in the reference is right.",
        _exact_set,
        undefined=_UNKNOWN,
    ),
)
