"""Captions say what their intervals carry, and no more."""

from __future__ import annotations

import pytest

from bigchem.sweep.analysis.captions import of_all, of_gain, of_metric, of_pool
from bigchem.sweep.analysis.gains import gains_of, pools_of
from bigchem.sweep.analysis.trends import trends_of
from bigchem.sweep.scores.aggregate import Cell
from bigchem.sweep.scores.estimate import Estimate, over_seeds
from bigchem.sweep.scores.records import REGIMES, Regime, scale_of
from bigchem.tasks import shipped

SIZES = (1_000_000, 4_000_000, 16_000_000)
KEY = ("captioning", "bleu4")
NAME = "captioning BLEU-4"


def cells(regime: Regime, values: tuple[float, ...], margin: float | None, seeds: int = 1) -> list[Cell]:
    """One for each size. Seeds are 0.002 apart."""
    found = []
    for size, value in zip(SIZES, values, strict=True):
        of_seed = {}
        for seed in range(seeds):
            own = value + 0.002 * ((seed + (regime == "alone") * size // SIZES[0]) % seeds)
            of_seed[seed] = Estimate(own) if margin is None else Estimate(own, own - margin, own + margin)
        found.append(Cell(*KEY, regime, size, scale_of(KEY[1]), of_seed, over_seeds(list(of_seed.values()))))
    return found


@pytest.mark.parametrize(
    ("together", "alone", "margin", "caption"),
    [
        (
            (0.30, 0.40, 0.50),
            (0.28, 0.35, 0.40),
            0.01,
            f"{NAME} rises from 1M to 16M in both regimes; sharing is ahead at 16M",
        ),
        (
            (0.30, 0.50, 0.305),
            (0.40, 0.35, 0.30),
            0.01,
            f"{NAME} does not certainly change from 1M to 16M together and falls from 1M to 16M alone; "
            "whether sharing helps at 16M is open",
        ),
        (
            (0.30, 0.40, 0.50),
            (0.20, 0.30, 0.40),
            None,
            f"{NAME} changes by +0.2 (no interval) from 1M to 16M in both regimes; the gain at 16M has no interval",
        ),
    ],
    ids=["certain", "open", "no interval"],
)
def test_a_metrics_caption_says_what_its_ends_and_its_last_gain_show(
    together: tuple[float, ...], alone: tuple[float, ...], margin: float | None, caption: str
) -> None:
    drawn = {regime: cells(regime, v, margin) for regime, v in zip(REGIMES, (together, alone), strict=True)}
    assert of_metric(NAME, drawn, gains_of([*drawn["together"], *drawn["alone"]])) == caption


@pytest.mark.parametrize(
    ("together", "growth", "of_the_mean"),
    [
        ((0.40, 0.45, 0.50), "the gain grows with size; sharing is ahead at 16M", "rises with size and is above zero"),
        (
            (0.40, 0.401, 0.40),
            "whether it grows with size is open; whether sharing helps at 16M is open",
            "does not certainly change with size and is not certain",
        ),
    ],
    ids=["grows", "open"],
)
def test_the_captions_of_gains_say_what_their_slope_and_their_last_gain_show(
    together: tuple[float, ...], growth: str, of_the_mean: str
) -> None:
    both = [*cells("together", together, 0.005, seeds=3), *cells("alone", (0.40, 0.40, 0.40), 0.005, seeds=3)]
    gains = gains_of(both)
    assert of_gain(NAME, gains, trends_of(both, gains)[KEY]) == f"gain of sharing in {NAME}: {growth}"
    (pool,) = (pool for pool in pools_of(gains, dict([KEY]), shipped()) if pool.of == "headline")
    assert of_pool(pool) == f"the mean gain {of_the_mean} at 16M"


def test_the_caption_of_all_metrics_counts_those_that_exclude_zero() -> None:
    gains = [Estimate(0.1, 0.05, 0.15), Estimate(0.1, -0.05, 0.25), Estimate(-0.1, -0.2, -0.05), Estimate(0.3)]
    text = "at 16M sharing is ahead in 1 of 4 metrics, behind in 1 and undecided in 2"
    assert of_all(gains, "at 16M") == text
    assert of_all(gains[1:2], "at 16M") == "at 16M sharing is undecided in 1 of 1 metrics"
