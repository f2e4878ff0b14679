"""How often intervals cover the truth of planted sweeps, from outcomes of single examples on.

`pytest tests/sweep/analysis/test_coverage.py -m slow -s` prints the table of docs/benchmarks.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from bigchem.sweep.analysis.gains import gains_of, means_of
from bigchem.sweep.analysis.trends import LEVEL, holm
from bigchem.sweep.scores.aggregate import Cell
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import Regime, scale_of

SIZES = (200_000, 1_000_000, 4_000_000, 16_000_000)
EXAMPLES, DRAWS = 300, 300


@dataclass(frozen=True)
class Case:
    """A kind of sweep. share: of right answers of the smallest model alone, about. noise: of a run, in logits, by size.
    tails: degrees of freedom of its Student's t; 0: normal."""

    name: str
    seeds: int = 3
    share: float = 0.3
    noise: tuple[float, ...] = (0.15,) * 4
    tails: int = 0


CASES = (
    Case("equal noise, 3 seeds"),
    Case("noise falls 4:1 with size", noise=(0.4, 0.25, 0.16, 0.1)),
    Case("the largest size five times as noisy", noise=(0.1, 0.1, 0.1, 0.5)),
    Case("heavy tails (t, 3 degrees)", tails=3),
    Case("2 seeds", seeds=2),
    Case("5 seeds", seeds=5),
    Case("rare outcomes (1 %)", share=0.01),
)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 1 / (1 + np.exp(-x))
    return found


def logits(case: Case) -> dict[Regime, NDArray[np.float64]]:
    """Of an example of mean difficulty, by size [k]."""
    alone = np.log(case.share / (1 - case.share)) + 0.5 * np.log10(np.array(SIZES) / SIZES[0])
    return {"alone": alone, "together": alone + 0.2 + 0.1 * np.log10(np.array(SIZES) / SIZES[0])}


def truth(case: Case) -> NDArray[np.float64]:
    """The expected gain by size, over examples and seeds [k]."""
    random = np.random.default_rng(1)
    difficulty = random.normal(size=20_000)
    luck = random.standard_t(case.tails, 20_000) / np.sqrt(3) if case.tails else random.normal(size=20_000)
    gain = [
        float(np.mean([sigmoid(level[k] - difficulty + case.noise[k] * luck)]))
        for level in logits(case).values()
        for k in range(len(SIZES))
    ]
    return np.array(gain[4:]) - np.array(gain[:4])


def sweep(case: Case, random: np.random.Generator) -> list[Cell]:
    """Scores of one metric by runs that answer the same examples, each resampled alike."""
    difficulty = random.normal(size=EXAMPLES)
    resamples = random.multinomial(EXAMPLES, [1 / EXAMPLES] * EXAMPLES, size=DRAWS) / EXAMPLES
    cells = []
    for regime, levels in logits(case).items():
        for k, size in enumerate(SIZES):
            seeds, draws = {}, {}
            for seed in range(case.seeds):
                luck = random.standard_t(case.tails) / np.sqrt(3) if case.tails else random.normal()
                chance = sigmoid(levels[k] - difficulty + case.noise[k] * luck)
                right = (random.random(EXAMPLES) < chance).astype(float)
                seeds[seed], draws[seed] = Estimate(float(right.mean())), resamples @ right
            mean = Estimate(float(np.mean([found.value for found in seeds.values()])))
            cells.append(Cell("forward", "top1", regime, size, scale_of("top1"), seeds, mean, n=EXAMPLES, draws=draws))
    return cells


def coverage(case: Case, sweeps: int) -> tuple[float, float, float]:
    """Shares of sweeps in which the interval of the slope and of the gain at the largest size hold the truth; and the
    slope's mean half-width."""
    random, gains, held, widths = np.random.default_rng(0), truth(case), [], []
    x = np.log10(np.array(SIZES))
    slope = float(np.polyfit(x, gains, 1)[0])
    for _ in range(sweeps):
        found = gains_of(sweep(case, random))
        means = means_of(found)
        assert means is not None
        contrast = means.slope()
        assert contrast is not None
        largest = found[-1].estimate
        assert largest.low is not None
        assert largest.high is not None
        held.append((abs(contrast.value - slope) <= contrast.half, largest.low <= gains[-1] <= largest.high))
        widths.append(contrast.half)
    rates = np.mean(held, axis=0)
    return float(rates[0]), float(rates[1]), float(np.mean(widths))


def test_intervals_hold_the_truth_of_planted_sweeps_about_as_often_as_they_say() -> None:
    slope, gain, _ = coverage(CASES[1], 60)
    assert slope >= 0.88
    assert gain >= 0.88


@pytest.mark.slow
def test_the_table_of_coverage() -> None:
    print()
    for case in CASES:
        slope, gain, half = coverage(case, 300)
        print(f"| {case.name} | {slope:.1%} | {gain:.1%} | {half:.3f} |")
        assert slope >= 0.92, case.name
        assert gain >= 0.92, case.name


def test_a_family_of_metrics_without_a_trend_has_a_false_one_in_about_one_of_twenty_sweeps() -> None:
    random, false = np.random.default_rng(0), 0
    for _ in range(300):
        p = {("task", str(i)): float(value) for i, value in enumerate(random.random(20))}
        false += any(value < LEVEL for value in holm(p).values())
    assert 0.02 <= false / 300 <= 0.09
