"""The rows of the model benchmarks: the same for all contestants, within the budget, little padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.base.errors import UserError
from bigchem.bench.model.mix import BUILT_IN, LONGEST, grouped, lengths_of_tasks, mixed, packed, padded_tokens, spread
from bigchem.tasks import shipped

ROWS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=60).map(np.array)


@given(rows=ROWS, budget=st.integers(120, 600))
def test_both_ways_of_making_batches_keep_every_row_and_the_budget(rows: np.ndarray, budget: int) -> None:
    for batches in (grouped(rows, budget), packed(rows, budget, seed=0)):
        assert sorted(map(tuple, np.concatenate(batches).tolist())) == sorted(map(tuple, rows.tolist()))
    assert all(padded_tokens(batch) <= budget for batch in grouped(rows, budget))
    assert all(batch.sum() <= budget + 120 for batch in packed(rows, budget, seed=0))


def test_the_built_in_mix_is_that_of_the_five_tasks_in_equal_parts() -> None:
    lengths = lengths_of_tasks(None)
    assert tuple(lengths) == tuple(shipped().scored)
    assert all(rows.shape == (256, 2) and rows.max() <= LONGEST for rows in lengths.values())
    rows = mixed(lengths, 50_000, seed=0)
    assert 49_000 < rows.sum() <= 50_000
    assert np.array_equal(rows, mixed(lengths, 50_000, seed=0))
    assert BUILT_IN.stat().st_size < 20_000


def test_the_peer_pads_the_real_mix_by_no_more_than_is_said() -> None:
    rows = mixed(lengths_of_tasks(None), 50 * 4096, seed=0)
    padding = 1 - rows.sum() / sum(map(padded_tokens, grouped(rows, 4096)))
    assert 0.15 < padding < 0.25


def test_lengths_are_read_from_a_built_data_folder_too(small_data: Path, tmp_path: Path) -> None:
    lengths = lengths_of_tasks(small_data)
    assert set(lengths) <= set(shipped().scored)
    assert all(rows.min() >= 1 for rows in lengths.values())
    task, pairs = next(spread(lengths, 4))
    assert all(pair in lengths[task].tolist() for pair in pairs)
    with pytest.raises(UserError, match="no lengths of training rows"):
        lengths_of_tasks(tmp_path)
