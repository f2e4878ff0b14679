from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_results import SIZES, gain_of, results
from numpy.typing import NDArray

from bigchem.sweep.analysis.gains import contrast, gains_of, means_of, pools_of
from bigchem.sweep.analysis.trends import trends_of
from bigchem.sweep.scores.aggregate import Cell, cells_of
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import Regime, scale_of
from bigchem.tasks import shipped


def cell(task: str, metric: str, regime: Regime, parameters: int, *seeds: Estimate) -> Cell:
    return Cell(task, metric, regime, parameters, scale_of(metric), dict(enumerate(seeds)), seeds[0])


def both(task: str, metric: str, parameters: int, together: float, alone: float, margin: float = 0.1) -> list[Cell]:
    return [
        cell(task, metric, "together", parameters, Estimate(together, together - margin, together + margin)),
        cell(task, metric, "alone", parameters, Estimate(alone, alone - margin, alone + margin)),
    ]


def drawn(cells: list[Cell], *draws: NDArray[np.float64]) -> list[Cell]:
    """The cells, each with its values over resamples of the test examples."""
    return [replace(one, draws={0: found}) for one, found in zip(cells, draws, strict=True)]


def test_what_both_models_find_hard_cancels_in_the_draws_of_their_gain() -> None:
    random = np.random.default_rng(0)
    shared, own = random.normal(0, 0.05, 4000), random.normal(0, 0.005, 4000)
    cells = both("forward", "top1", 10, 0.6, 0.5)
    (independent,), (paired,) = gains_of(cells), gains_of(drawn(cells, 0.6 + shared + own, 0.5 + shared))
    assert (independent.paired, paired.paired) == (0, 1)
    assert independent.estimate.value == paired.estimate.value == pytest.approx(0.1)
    assert independent.estimate.low == pytest.approx(0.1 - 0.1 * 2**0.5)
    assert paired.estimate.low == pytest.approx(0.1 - 1.96 * 0.005, abs=0.001)


def test_where_one_side_lacks_a_seed_both_sides_training_noise_widens_the_interval() -> None:
    draws = np.random.default_rng(0).normal(0, 0.001, 4000)
    values = {"together": (0.60, 0.66, 0.69), "alone": (0.50, 0.56)}
    cells = [
        replace(
            cell("forward", "top1", regime, 10, *(Estimate(value, value - 0.01, value + 0.01) for value in found)),
            draws={seed: value + draws for seed, value in enumerate(found)},
        )
        for regime, found in values.items()
    ]
    (gain,) = gains_of(cells)
    assert gain.estimate.value == pytest.approx(0.12)
    error = math.hypot(np.std(values["together"], ddof=1) / 3**0.5, np.std(values["alone"], ddof=1) / 2**0.5)
    assert gain.estimate.low is not None
    assert gain.estimate.value - gain.estimate.low > 1.96 * error  # Student's t, with few degrees of freedom


def test_the_noise_of_one_side_says_nothing_of_a_single_seed_on_the_other() -> None:
    cells = both("forward", "top1", 10, 0.6, 0.5)
    cells[0] = replace(cells[0], seeds={0: Estimate(0.6, 0.5, 0.7), 1: Estimate(0.7, 0.6, 0.8)})
    (gain,) = gains_of(cells)
    assert (gain.training, gain.p) == ((), None)


def test_where_less_is_better_the_draws_of_a_gain_are_turned_too() -> None:
    draws = np.random.default_rng(0).normal(0, 1, 4000)
    (gain,) = gains_of(drawn(both("generation", "levenshtein", 10, 20, 25), 20 + draws, np.full(4000, 25.0)))
    assert (gain.estimate.value, gain.estimate.low, gain.estimate.high) == pytest.approx((5, 3.04, 6.96), abs=0.15)


def test_examples_that_all_sizes_share_do_not_widen_the_slope() -> None:
    """The gain is as much too high at every size on a lucky test set: no slope comes of it."""
    luck = np.random.default_rng(0).normal(0, 0.05, 1000)
    cells, joint = [], []
    for size in (10, 100, 1000):
        pair = both("forward", "top1", size, 0.6, 0.5)
        cells += pair
        joint += drawn(pair, 0.6 + luck, np.full(1000, 0.5))
    widths = []
    for found in (cells, joint):
        means = means_of(gains_of(found))
        assert means is not None
        slope = means.slope()
        assert slope is not None
        widths.append(slope.half)
    assert widths[0] > 0.05
    assert widths[1] < 1e-9


def test_a_kind_is_pooled_at_the_sizes_that_all_its_tasks_have() -> None:
    cells = []
    for size in (10, 100, 1000):
        cells += both("forward", "top1", size, 0.5, 0.4)
        cells += both("actions", "bleu2", size, 0.5, 0.2) if size > 10 else []
        cells += both("captioning", "bleu4", size, 0.5, 0.5)
    headline = {"captioning": "bleu4", "forward": "top1", "actions": "bleu2"}
    pools = {pool.kind: pool for pool in pools_of(gains_of(cells), headline, shipped())}
    assert pools["single-domain"].tasks == ("forward", "actions")
    assert {size: gain.value for size, gain in pools["single-domain"].gains.items()} == pytest.approx(
        {100: 0.2, 1000: 0.2}
    )
    assert pools["single-domain"].slope is None  # from two sizes of one seed
    assert pools["cross-domain"].slope is not None
    assert contrast(list(pools.values())) is None


def test_margins_of_tasks_join_in_quadrature() -> None:
    cells = both("forward", "top1", 10, 0.5, 0.4) + both("actions", "bleu2", 10, 0.5, 0.2)
    (pool,) = pools_of(gains_of(cells), {"forward": "top1", "actions": "bleu2"}, shipped())
    margins = pool.gains[10].margins
    assert margins is not None
    assert margins[0] == pytest.approx((2 * 2 * 0.1**2) ** 0.5 / 2)


def test_seeds_are_pooled_seed_by_seed_so_that_what_tasks_share_is_not_averaged_away() -> None:
    """One mixed model gains in both tasks or in neither, so the pool's noise over seeds is one task's."""
    cells = []
    for task, metric in (("forward", "top1"), ("actions", "bleu2")):
        cells.append(cell(task, metric, "together", 10, *(Estimate(0.5 + luck) for luck in (-0.1, 0.0, 0.1))))
        cells.append(cell(task, metric, "alone", 10, Estimate(0.5), Estimate(0.5), Estimate(0.5)))
    gains = gains_of(cells)
    (pool,) = pools_of(gains, {"forward": "top1", "actions": "bleu2"}, shipped())
    assert pool.gains[10] == gains[0].estimate


def test_where_a_headline_is_constant_the_loss_of_its_task_is_pooled_nevertheless() -> None:
    cells = [
        c for task, top, loss in (("forward", 0.0, 2.0), ("actions", 0.5, 1.0)) for c in _with_loss(task, top, loss)
    ]
    headline = {"forward": "top1", "actions": "bleu2"}
    pools = {pool.of: pool for pool in pools_of(gains_of(cells), headline, shipped(), {("forward", "top1")})}
    assert pools["headline"].tasks == ("actions",)
    assert pools["loss"].tasks == ("forward", "actions")


def _with_loss(task: str, value: float, loss: float) -> list[Cell]:
    metric = {"forward": "top1", "actions": "bleu2"}[task]
    return both(task, metric, 10, value, value) + both(task, "loss", 10, loss, loss + 0.1)


def test_a_headline_that_is_no_share_is_not_pooled() -> None:
    gains = gains_of(both("generation", "levenshtein", 10, 20, 25))
    assert pools_of(gains, {"generation": "levenshtein"}, shipped()) == ()


def test_the_contrast_is_the_difference_of_the_slopes() -> None:
    cells = []
    for size, gain in ((10, 0.1), (100, 0.2), (1000, 0.3)):
        cells += both("captioning", "bleu4", size, 0.5 + gain, 0.5) + both("forward", "top1", size, 0.5, 0.5)
    found = contrast(pools_of(gains_of(cells), {"captioning": "bleu4", "forward": "top1"}, shipped()))
    assert found is not None
    assert found.value == pytest.approx(0.1)


def test_a_slope_per_decade_of_flops_is_that_of_parameters_over_their_exponent() -> None:
    found = results({("captioning", "bleu4"): gain_of(0.01, 0.02, 0.03, 0.04)})
    cells = cells_of(found.scores, found.tasks)
    trend = trends_of(cells, gains_of(cells))["captioning", "bleu4"]
    steeper = trend.per_decade_of({size: float(size) ** 2 for size in SIZES})
    assert steeper is not None
    assert steeper.value == pytest.approx(trend.per_decade.value / 2)
    assert steeper.low == pytest.approx((trend.per_decade.low or 0) / 2)
    assert trend.per_decade_of(dict.fromkeys(SIZES, 1e12)) is None
    assert trend.per_decade_of({SIZES[0]: 1e12}) is None
