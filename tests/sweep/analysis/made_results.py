"""Results with planted gains, made without files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import Regime, Results, Run, Score, scale_of, tasks_of

SIZES = (200_000, 1_000_000, 4_000_000, 16_000_000)
CROSS = {
    "captioning": ("bleu2", "bleu4", "rouge1", "rouge2", "rougeL", "meteor"),
    "generation": ("exact", "bleu", "maccs", "rdk", "morgan", "validity", "loss", "levenshtein"),
}
"""14 metrics of the two cross-domain tasks."""
Pair = tuple[float, float]
Planted = Callable[[int], Pair]
"""A size's place -> the values together and alone."""


def score(run: Run, task: str, metric: str, value: float, margin: float | None = None, n: int | None = None) -> Score:
    """A score, with an interval if a margin is given."""
    estimate = Estimate(value) if margin is None else Estimate(value, value - margin, value + margin)
    return Score(run, task, metric, scale_of(metric), estimate, n=n)


def results(
    planted: Mapping[tuple[str, str], Planted],
    seeds: int = 3,
    sizes: Sequence[int] = SIZES,
    noise: float = 0.002,
    n: int | None = None,
    seed: int = 0,
) -> Results:
    """One run of each regime for every size and seed, with normal noise of this standard deviation."""
    random = np.random.default_rng(seed)
    scores = []
    for place, parameters in enumerate(sizes):
        for number in range(seeds):
            runs: dict[Regime, Run] = {
                regime: Run(f"{parameters}-{regime}-s{number}", parameters, regime, number, f"{regime}.json")
                for regime in ("together", "alone")
            }
            for (task, metric), values in planted.items():
                for run, value in zip(runs.values(), values(place), strict=True):
                    scores.append(score(run, task, metric, value + random.normal(0, noise), n=n))
    runs_ = {id(one.run): one.run for one in scores}
    return Results(tuple(runs_.values()), tuple(scores), tasks_of(scores))


def gain_of(*gains: float, alone: Sequence[float] = (0.4, 0.4, 0.4, 0.4), lower: bool = False) -> Planted:
    """These gains by size. lower: of a metric that is better lower."""
    return lambda place: (alone[place] + (-gains[place] if lower else gains[place]), alone[place])
