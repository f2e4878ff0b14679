from __future__ import annotations

import pytest

from bigchem.sweep.analysis.aggregate import Cell
from bigchem.sweep.analysis.fit import Estimate
from bigchem.sweep.analysis.gains import contrast, gains_of, pools_of
from bigchem.sweep.analysis.records import Regime, scale_of
from bigchem.tasks import shipped


def cell(task: str, metric: str, regime: Regime, parameters: int, *seeds: Estimate) -> Cell:
    return Cell(task, metric, regime, parameters, scale_of(metric), dict(enumerate(seeds)), seeds[0])


def both(task: str, metric: str, parameters: int, together: float, alone: float, margin: float = 0.1) -> list[Cell]:
    return [
        cell(task, metric, "together", parameters, Estimate(together, together - margin, together + margin)),
        cell(task, metric, "alone", parameters, Estimate(alone, alone - margin, alone + margin)),
    ]


def test_a_paired_difference_stands_in_for_the_independent_one() -> None:
    cells = both("forward", "top1", 10, 0.6, 0.5)
    (independent,) = gains_of(cells, {})
    (paired,) = gains_of(cells, {("forward", "top1", 10, 0): Estimate(0.1, 0.07, 0.12)})
    assert (independent.paired, paired.paired) == (0, 1)
    assert independent.estimate.value == pytest.approx(0.1)
    assert independent.estimate.low == pytest.approx(0.1 - 0.1 * 2**0.5)
    assert (paired.estimate.low, paired.estimate.high) == pytest.approx((0.07, 0.12))


def test_where_less_is_better_a_paired_difference_is_turned_with_its_interval() -> None:
    (gain,) = gains_of(
        both("generation", "levenshtein", 10, 20, 25), {("generation", "levenshtein", 10, 0): Estimate(-5, -7, -4)}
    )
    assert (gain.estimate.value, gain.estimate.low, gain.estimate.high) == pytest.approx((5, 4, 7))


def test_a_kind_is_pooled_at_the_sizes_that_all_its_tasks_have() -> None:
    cells = []
    for size in (10, 100, 1000):
        cells += both("forward", "top1", size, 0.5, 0.4)
        cells += both("actions", "bleu2", size, 0.5, 0.2) if size > 10 else []
        cells += both("captioning", "bleu4", size, 0.5, 0.5)
    headline = {"captioning": "bleu4", "forward": "top1", "actions": "bleu2"}
    pools = {pool.kind: pool for pool in pools_of(gains_of(cells, {}), headline, shipped())}
    assert pools["single-domain"].tasks == ("forward", "actions")
    assert {size: gain.value for size, gain in pools["single-domain"].gains.items()} == pytest.approx(
        {100: 0.2, 1000: 0.2}
    )
    assert pools["single-domain"].trend is None
    assert pools["cross-domain"].trend is not None
    assert contrast(list(pools.values())) is None


def test_margins_of_tasks_join_in_quadrature() -> None:
    cells = both("forward", "top1", 10, 0.5, 0.4) + both("actions", "bleu2", 10, 0.5, 0.2)
    (pool,) = pools_of(gains_of(cells, {}), {"forward": "top1", "actions": "bleu2"}, shipped())
    margins = pool.gains[10].margins
    assert margins is not None
    assert margins[0] == pytest.approx((2 * 2 * 0.1**2) ** 0.5 / 2)


def test_seeds_are_pooled_seed_by_seed_so_that_what_tasks_share_is_not_averaged_away() -> None:
    """One mixed model gains in both tasks or in neither, so the pool's noise over seeds is one task's."""
    cells = []
    for task, metric in (("forward", "top1"), ("actions", "bleu2")):
        cells.append(cell(task, metric, "together", 10, *(Estimate(0.5 + luck) for luck in (-0.1, 0.0, 0.1))))
        cells.append(cell(task, metric, "alone", 10, Estimate(0.5), Estimate(0.5), Estimate(0.5)))
    gains = gains_of(cells, {})
    (pool,) = pools_of(gains, {"forward": "top1", "actions": "bleu2"}, shipped())
    assert pool.gains[10] == gains[0].estimate


def test_a_headline_that_is_no_share_is_not_pooled() -> None:
    gains = gains_of(both("generation", "levenshtein", 10, 20, 25), {})
    assert pools_of(gains, {"generation": "levenshtein"}, shipped()) == ()


def test_the_contrast_is_the_difference_of_the_slopes() -> None:
    cells = []
    for size, gain in ((10, 0.1), (100, 0.2), (1000, 0.3)):
        cells += both("captioning", "bleu4", size, 0.5 + gain, 0.5) + both("forward", "top1", size, 0.5, 0.5)
    found = contrast(pools_of(gains_of(cells, {}), {"captioning": "bleu4", "forward": "top1"}, shipped()))
    assert found is not None
    assert found.value == pytest.approx(0.1)
