"""Shared models on several mixtures: which one the claim is about, and which show transfer between tasks (PURE)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from bigchem.sweep.scores.records import Run, Score

Design = Literal["pair", "leave-one-out", "leave-group-out"]
Mixture = Mapping[str, float]
"""Share of each task."""


@dataclass(frozen=True)
class Step:
    """Two mixtures of which the larger has further tasks, and else the same shares. pair: one more than a single task;
    leave-one-out, leave-group-out: the larger one has every task, the smaller one all but one, or all but several.

    added: the further tasks, as text.
    """

    design: Design
    added: str
    larger: Mixture
    smaller: Mixture


def shares(mixture: Mixture) -> str:
    """A mixture as text, by which mixtures are told apart."""
    return ", ".join(f"{task} {share:.3g}" for task, share in sorted(mixture.items()))


def whole(mixtures: Iterable[Mixture]) -> Mixture | None:
    """The mixture that has every task; None if none has."""
    every = list(mixtures)
    tasks = {task for mixture in every for task in mixture}
    return next((mixture for mixture in every if mixture.keys() == tasks), None)


def steps(mixtures: Iterable[Mixture]) -> list[Step]:
    """The pairs of these mixtures that a design compares. A mixture of a pair is in no group left out."""
    distinct = list({shares(mixture): mixture for mixture in mixtures if mixture}.values())
    largest = whole(distinct)
    found, groups = [], []
    for larger, smaller in permutations(distinct, 2):
        added = sorted(larger.keys() - smaller.keys())
        if not added or not _same_shares(larger, smaller):
            continue
        if len(added) == 1 and (len(smaller) == 1 or larger is largest):
            found.append(Step("pair" if len(smaller) == 1 else "leave-one-out", added[0], larger, smaller))
        elif len(smaller) > 1 and larger is largest:
            groups.append(Step("leave-group-out", " + ".join(added), larger, smaller))
    pairs = [step.larger for step in found if step.design == "pair"]
    return found + [step for step in groups if step.smaller not in pairs]


def _same_shares(larger: Mixture, smaller: Mixture) -> bool:
    """Whether the larger one, without the tasks that the smaller one lacks, is the smaller one."""
    if not smaller.keys() <= larger.keys():
        return False
    total = sum(larger[task] for task in smaller)
    return all(math.isclose(larger[task] / total, share, rel_tol=1e-3) for task, share in smaller.items())


def set_apart(scores: Sequence[Score]) -> tuple[list[Score], list[Score]]:
    """The scores for the claim, and those of shared models on other mixtures than that of all tasks.

    A design is recognised by every such mixture being compared with another one of its size (see steps); otherwise
    nothing is set apart, and comparable.problems refuses the mixtures.
    """
    runs = {id(s.run): s.run for s in scores}.values()
    shared = {shares(run.mixture): run.mixture for run in runs if run.regime == "together" and run.mixture}
    if len(shared) < 2 or len({frozenset(mixture) for mixture in shared.values()}) < len(shared):
        return list(scores), []
    largest = whole(run.mixture for run in runs)
    others = {name for name, mixture in shared.items() if largest is None or mixture.keys() != largest.keys()}
    sizes = {run.parameters for run in runs}
    compared = {
        shares(mixture)
        for size in sizes
        for step in steps(run.mixture for run in runs if run.parameters == size)
        for mixture in (step.larger, step.smaller)
    }
    if not others <= compared:
        return list(scores), []
    apart = [s for s in scores if _is_apart(s.run, others)]
    return [s for s in scores if not _is_apart(s.run, others)], apart


def without_mixtures(by_axis: Mapping[str, Sequence[Score]], apart: Sequence[Score]) -> dict[str, list[Score]]:
    """The scores of each axis without those on mixtures that are set apart."""
    others = {shares(s.run.mixture) for s in apart}
    left = {axis: [s for s in scores if not _is_apart(s.run, others)] for axis, scores in by_axis.items()}
    return {axis: scores for axis, scores in left.items() if scores}


def _is_apart(run: Run, others: set[str]) -> bool:
    return run.regime == "together" and shares(run.mixture) in others


def apart_note(scores: Sequence[Score], apart: Sequence[Score]) -> list[str]:
    """Says which runs are set apart."""
    if not apart:
        return []
    runs = {id(s.run): s.run for s in apart}.values()
    names = dict.fromkeys(" + ".join(run.mixture) for run in sorted(runs, key=lambda run: len(run.mixture)))
    together = next((s.run.mixture for s in scores if s.run.regime == "together" and s.run.mixture), None)
    claim = "no shared model has all tasks" if together is None else f"the claim is about {' + '.join(together)}"
    return [
        f"Set apart, and used for transfer between tasks only: {len(runs)} runs on {', '.join(names)}; {claim}.",
    ]
