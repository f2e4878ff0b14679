"""`bigchem sweep power`: what a planned sweep can find."""

from __future__ import annotations

import pytest
from planted_sweep import SIZES, write_sweep

from bigchem.base.errors import UserError
from bigchem.sweep.analysis.analyse import Analysis, analyse
from bigchem.sweep.power import power, to_json
from bigchem.sweep.scores.results import load


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return analyse(load([write_sweep(tmp_path_factory.mktemp("pilot"), seeds=(0, 1, 2), noise=0.02)]))


def test_the_seeds_for_a_slope_are_those_of_the_planned_sizes(pilot: Analysis) -> None:
    planned = power(pilot, [2, 3, 5], [SIZES[0], 100 * SIZES[-1]])
    for row in planned:
        finding = [seeds for seeds, slope in row.detectable.items() if slope <= abs(row.sought)]
        assert not finding or (row.seeds is not None and row.seeds <= min(finding))
    pilots = {row.gain: row.seeds for row in power(pilot, [2])}
    assert any(row.seeds is not None and row.seeds < (pilots[row.gain] or 1000) for row in planned)


def test_a_slope_of_interest_replaces_the_pilots(pilot: Analysis) -> None:
    rows = power(pilot, [2], sought=1e6)
    assert {row.seeds for row in rows} == {2}
    assert {row["sought"] for row in to_json(rows)} == {1e6}
    assert len({row["slope"] for row in to_json(rows)}) > 1


@pytest.mark.parametrize("sizes", [[1e6], [1e6, 1e6], [0, 1e6], [-1e6, 1e6], [float("nan"), 1e6]])
def test_sizes_without_a_line_through_them_are_refused(pilot: Analysis, sizes: list[float]) -> None:
    with pytest.raises(UserError, match="two different sizes above zero"):
        power(pilot, [2], sizes)
