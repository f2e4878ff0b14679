"""What a sweep can find, from the noise of one that was run (PURE)."""

from collections.abc import Sequence

import numpy as np

from bigchem.sweep.analysis.size_means import SizeMeans, Variance
from bigchem.sweep.scores.estimate import Floats

MOST_SEEDS = 100
"""More are not tried: a sweep of so many is not run."""


def design(pilot: SizeMeans, seeds: int, sizes: Sequence[float] = ()) -> SizeMeans | None:
    """A sweep with the pilot's noise and this many seeds of every size; its means are zero. sizes: instead of the
    pilot's; each then has the pilot's mean noise. None if the pilot has one seed of every size, or seeds is below two.
    """
    variance, examples = pilot.seed_variance, pilot.examples
    if variance is None or seeds < 2:
        return None
    at = np.sort(np.array(sizes, dtype=float)) if sizes else pilot.sizes
    if sizes:
        variance = np.full(len(at), float(variance.mean()))
        examples = None if examples is None else _alike(examples, len(at))
    training = tuple((Variance(float(value) / seeds, seeds - 1),) for value in variance)
    return SizeMeans(at, np.zeros(len(at)), training, examples)


def _alike(covariance: Floats, k: int) -> Floats:
    """A covariance [k, k] with the mean variance and the mean correlation of another."""
    variance = float(np.diag(covariance).mean())
    others = covariance[~np.eye(len(covariance), dtype=bool)]
    common = float(others.mean()) if others.size else 0.0
    found: Floats = np.full((k, k), common) + np.eye(k) * (variance - common)
    return found


def detectable_slope(pilot: SizeMeans, seeds: int, sizes: Sequence[float] = ()) -> float | None:
    """The smallest slope per decade that a sweep with this many seeds finds with 80 % power, by a test at 5 %; None:
    see design."""
    planned = design(pilot, seeds, sizes)
    slope = None if planned is None else planned.slope()
    return None if slope is None else slope.detectable()


def seeds_to_find(pilot: SizeMeans, slope: float, sizes: Sequence[float] = ()) -> int | None:
    """The fewest seeds of every size that find a slope as large with 80 % power; None if MOST_SEEDS do not, as where
    the test examples are too few, or if the pilot has one seed. sizes: see design."""
    for seeds in range(2, MOST_SEEDS + 1):
        found = detectable_slope(pilot, seeds, sizes)
        if found is not None and found <= abs(slope):
            return seeds
    return None
