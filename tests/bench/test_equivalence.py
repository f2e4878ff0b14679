"""One run has one loss curve, whatever the ZeRO stage, number of ranks and packing."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigchem.bench.equivalence import LIMIT, ULP, VARIANTS, compare, train_all


@pytest.mark.slow
def test_a_few_ways_of_cutting_a_run_have_one_loss_curve(small_data: Path) -> None:
    chosen = ("zero0-1rank-whole", "zero2-1rank-few", "zero3-1rank-one")
    variants = [variant for variant in VARIANTS if variant.name in chosen]
    curves = train_all(variants, small_data, steps=6, dropout=0.1)
    differences = compare(curves)
    assert len(curves) == len(variants) + 1
    assert max(differences.values()) < LIMIT
    assert differences[ULP] > 0
    assert all(losses[-1] < losses[0] for losses in curves.values())


@pytest.mark.slow
def test_all_ways_have_one_loss_curve_over_fifty_steps(small_data: Path) -> None:
    assert max(compare(train_all(VARIANTS, small_data, steps=50, dropout=0.1)).values()) < LIMIT


def test_a_curve_that_is_another_one_is_told() -> None:
    assert compare({"first": [2.0, 1.0], "second": [2.0, 1.1]}) == pytest.approx({"first": 0.0, "second": 0.1})
