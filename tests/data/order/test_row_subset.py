from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.data.order.row_subset import WORD, RowSubset

masks = st.lists(st.booleans(), min_size=0, max_size=400).map(lambda bits: np.array(bits, dtype=bool))


@given(masks, st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_rows_are_numbered_in_order_without_gaps(mask: np.ndarray, words: int) -> None:
    kept = RowSubset.of([mask[start : start + words * WORD] for start in range(0, len(mask), words * WORD)])
    rows = np.flatnonzero(mask)
    assert kept.size == len(rows)
    assert kept.stored(np.arange(kept.size)).tolist() == rows.tolist()
    assert kept.stored(np.arange(kept.size)[::-2]).tolist() == rows[::-2].tolist()
    assert kept.mask().tolist() == mask.tolist()


def test_it_takes_a_quarter_of_a_byte_a_row_whatever_is_left_out() -> None:
    for share in (0.0, 0.5, 0.99):
        kept = RowSubset.of([np.random.default_rng(0).random(WORD * 10_000) >= share])
        assert sum(array.nbytes for array in (kept._bits, kept._before)) <= 0.25 * kept.rows
