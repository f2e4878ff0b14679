from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.data.order.row_subset import WORD, RowSubset

masks = st.lists(st.booleans(), min_size=0, max_size=400).map(lambda bits: np.array(bits, dtype=bool))


@given(masks, st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_rows_are_numbered_in_order_without_gaps(mask: np.ndarray, words: int) -> None:
    subset = RowSubset.of([mask[start : start + words * WORD] for start in range(0, len(mask), words * WORD)])
    rows = np.flatnonzero(mask)
    assert subset.size == len(rows)
    assert subset.stored(np.arange(subset.size)).tolist() == rows.tolist()
    assert subset.stored(np.arange(subset.size)[::-2]).tolist() == rows[::-2].tolist()
    assert subset.mask().tolist() == mask.tolist()


def test_it_takes_a_quarter_of_a_byte_a_row_whatever_is_left_out() -> None:
    for share in (0.0, 0.5, 0.99):
        subset = RowSubset.of([np.random.default_rng(0).random(WORD * 10_000) >= share])
        assert sum(array.nbytes for array in (subset._bits, subset._before)) <= 0.25 * subset.rows
