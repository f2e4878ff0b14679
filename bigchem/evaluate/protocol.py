"""Which metrics, with which definitions, for which task.

A metric is one entry of PROTOCOL. Its definition is a pinned id with its meaning in words: a change that can change a
number needs a new id. What a metric needs and cannot find makes it n/a with the remedy; nothing stands in for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from bigchem.errors import unknown
from bigchem.evaluate import actions, molecules, text
from bigchem.evaluate.intervals import Statistic, mean_of, percentile_intervals
from bigchem.evaluate.pairs import Pairs, UnavailableError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """One number of the protocol.

    value: None where it is n/a; `note` then has the remedy. low, high: 95 % interval, None where none was asked for or
    can be had. n: examples that count. definition: an id of DEFINITIONS.
    """

    task: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    definition: str
    note: str = ""


@dataclass(frozen=True)
class Metric:
    """An entry of the protocol.

    name: its one name in every table. definition: pinned id. meaning: the definition in words. compute: raises
    UnavailableError with a remedy; a bare number (no interval) where the metric is no sum over examples. needs: scored
    only where every k-best list is at least this long.
    """

    name: str
    definition: str
    meaning: str
    compute: Callable[[Pairs], Statistic | float]
    higher_is_better: bool = True
    needs: int = 1


def score_task(
    task: str,
    sources: list[str],
    references: list[str],
    predictions: list[list[str]],
    *,
    bootstrap: int = 0,
    seed: int = 0,
    workers: int = 1,
) -> list[Score]:
    """Scores k-best predictions (best first) of one task by every metric of the protocol.

    bootstrap: resamples of the examples for 95 % intervals, the same for all metrics; 0: none. workers: processes.
    UserError for an unknown task; ValueError for lists of unequal length, no examples or an empty k-best list.
    """
    if task not in PROTOCOL:
        unknown("task", task, list(PROTOCOL))
    pairs = Pairs(sources, references, predictions, workers)
    metrics = [metric for metric in PROTOCOL[task] if metric.needs <= pairs.shortest]
    computed = [_attempt(metric, pairs) for metric in metrics]
    limits = _limits(computed, bootstrap, seed)
    return [
        _score(task, metric, outcome, limit, len(references))
        for metric, outcome, limit in zip(metrics, computed, limits, strict=True)
    ]


Outcome = Statistic | float | UnavailableError


def _attempt(metric: Metric, pairs: Pairs) -> Outcome:
    try:
        return metric.compute(pairs)
    except UnavailableError as missing:
        return missing


def _limits(outcomes: list[Outcome], resamples: int, seed: int) -> list[tuple[float, float]]:
    """An interval for each outcome, NaN where there is none."""
    statistics = [outcome for outcome in outcomes if isinstance(outcome, Statistic)]
    found = iter(percentile_intervals(statistics, resamples, seed) if resamples else [])
    none = (math.nan, math.nan)
    return [next(found, none) if isinstance(outcome, Statistic) else none for outcome in outcomes]


def _score(task: str, metric: Metric, outcome: Outcome, limit: tuple[float, float], examples: int) -> Score:
    if isinstance(outcome, UnavailableError):
        return Score(task, metric.name, None, None, None, 0, metric.definition, str(outcome))
    if isinstance(outcome, Statistic):
        value, n, note = outcome.value, outcome.n, outcome.note
    else:
        value, n, note = outcome, examples, ""
    if math.isnan(value):
        return Score(task, metric.name, None, None, None, 0, metric.definition, "undefined: no prediction counts")
    low, high = (None if math.isnan(end) else end for end in limit)
    return Score(task, metric.name, value, low, high, n, metric.definition, note)


def _bleu(counts: Floats, order: int) -> Statistic:
    return Statistic(counts, partial(text.bleu, order=order), len(counts))


def _share(hits: NDArray[np.bool_], note: str = "") -> Statistic:
    return mean_of(hits.astype(np.float64), note)


def _misses(parses: Floats) -> str:
    """The note about references that are no SMILES."""
    count = int((parses == 0).sum())
    return f"{count} references do not parse and count as misses" if count else ""


def _rouge(column: int, name: str) -> Metric:
    meaning = f"Mean {name} F of the raw texts (package rouge_score, no stemming)."
    return Metric(name, f"{name}/molt5-v1", meaning, lambda pairs: mean_of(pairs.rouge[:, column]))


def _tanimoto(name: str, fingerprint: str) -> Metric:
    meaning = f"Mean Tanimoto similarity of {fingerprint} over the pairs that both parse."
    return Metric(name, f"{name}/molt5-v1", meaning, lambda pairs: mean_of(pairs.molecules[name]))


def _top(k: int) -> Metric:
    meaning = (
        f"Share of references among the first {k} predictions, as RDKit canonical SMILES without atom maps; "
        "~ counts as a dot."
    )
    return Metric(
        f"top{k}",
        f"top{k}/canonical-v1",
        meaning,
        lambda pairs: _share(pairs.ranks["rank"] < k, _misses(pairs.ranks["parses"])),
        needs=k,
    )


def _near(percent: int) -> Metric:
    meaning = f"Share of predictions with 1 - Levenshtein distance / longer length >= {percent} %, in characters."
    return Metric(
        f"lev{percent}", f"lev{percent}/vaucher-v1", meaning, lambda pairs: _share(pairs.similarity >= percent / 100)
    )


def _validity(column: Callable[[Pairs], Floats]) -> Metric:
    meaning = "Share of best predictions that RDKit parses; the empty string does not count as a molecule."
    return Metric("validity", "validity/rdkit-v1", meaning, lambda pairs: mean_of(column(pairs)))


def _needs_forward_model(_: Pairs) -> NoReturn:
    raise UnavailableError("needs a forward model's predictions")


_SUBWORD = "over SciBERT WordPiece tokens (uncased, the first 512)"
_WORD = "over lower-cased words and single punctuation marks, no smoothing; not comparable with published numbers"

_CAPTIONING = (
    Metric("bleu2", "bleu2/molt5-v1", f"Corpus BLEU-2 {_SUBWORD}, no smoothing.", lambda p: _bleu(p.subword_counts, 2)),
    Metric("bleu4", "bleu4/molt5-v1", f"Corpus BLEU-4 {_SUBWORD}, no smoothing.", lambda p: _bleu(p.subword_counts, 4)),
    _rouge(0, "rouge1"),
    _rouge(1, "rouge2"),
    _rouge(2, "rougeL"),
    Metric(
        "meteor",
        "meteor/molt5-v1",
        f"Mean METEOR (nltk: alpha .9, beta 3, gamma .5, Porter stems, WordNet 3.0) {_SUBWORD}.",
        lambda p: mean_of(p.meteor),
    ),
    Metric("bleu2_words", "bleu2/words-v1", f"Corpus BLEU-2 {_WORD}.", lambda p: _bleu(p.word_counts, 2)),
    Metric("bleu4_words", "bleu4/words-v1", f"Corpus BLEU-4 {_WORD}.", lambda p: _bleu(p.word_counts, 4)),
)
_GENERATION = (
    Metric(
        "bleu",
        "bleu/molt5-v1",
        "Corpus BLEU-4 over the characters of the SMILES strings, no smoothing.",
        lambda p: _bleu(p.character_counts, 4),
    ),
    Metric(
        "exact",
        "exact/inchi-v1",
        "Share of predictions with the reference's InChI (its canonical SMILES where neither has an InChI).",
        lambda p: mean_of(p.molecules["exact"], _misses(p.molecules["parses"])),
    ),
    Metric(
        "levenshtein",
        "levenshtein/molt5-v1",
        "Mean Levenshtein distance of the SMILES strings, in characters.",
        lambda p: mean_of(molecules.levenshtein(p.references, p.best)),
        higher_is_better=False,
    ),
    _tanimoto("maccs", "MACCS keys"),
    _tanimoto("rdk", "RDKit path fingerprints (2048 bits, paths of 1 to 7 bonds)"),
    _tanimoto("morgan", "Morgan fingerprints (radius 2, counts)"),
    Metric(
        "fcd",
        "fcd/package-fcd-unsettled",
        "Fréchet ChemNet distance (package fcd) between the canonical SMILES of the pairs that both parse. Packages "
        "and published numbers disagree: compare only numbers that one version of the package gave.",
        lambda p: p.frechet,
        higher_is_better=False,
    ),
    _validity(lambda p: p.molecules["valid"]),
)
_REACTION = (
    *(_top(k) for k in (1, 2, 3, 5, 10)),
    Metric(
        "top1_nostereo",
        "top1_nostereo/canonical-v1",
        "top1 with stereochemistry removed from both sides.",
        lambda p: _share(p.ranks["rank_nostereo"] < 1, _misses(p.ranks["parses"])),
    ),
    _validity(lambda p: p.ranks["valid"]),
)
_ROUND_TRIP = Metric(
    "round_trip",
    "round_trip/forward-model-v1",
    "Share of best predictions that a forward model maps back to the product.",
    _needs_forward_model,
)
_ACTIONS = (
    Metric(
        "bleu2",
        "bleu2/whitespace-v1",
        "Corpus BLEU-2 over the text split at white space, no smoothing.",
        lambda p: _bleu(p.action_counts, 2),
    ),
    Metric(
        "exact",
        "exact/text-v1",
        "Share of predictions that are the reference's text, white space around it aside.",
        lambda p: mean_of(actions.exact(p.references, p.best)),
    ),
    _near(90),
    _near(75),
    _near(50),
)

PROTOCOL: dict[str, tuple[Metric, ...]] = {
    "captioning": _CAPTIONING,
    "generation": _GENERATION,
    "forward": _REACTION,
    "retrosynthesis": (*_REACTION, _ROUND_TRIP),
    "actions": _ACTIONS,
}
"""Task -> its metrics, in the order of its table."""

DEFINITIONS: dict[str, str] = {metric.definition: metric.meaning for task in PROTOCOL.values() for metric in task}
"""Every definition id in words."""

HIGHER_IS_BETTER: dict[str, bool] = {
    metric.name: metric.higher_is_better for task in PROTOCOL.values() for metric in task
}
"""Metric name -> whether more is better, for every metric of every task."""
