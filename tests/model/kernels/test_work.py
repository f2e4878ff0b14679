from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("triton")

from bigchem.model.kernels.tiles import Tile, Tiles
from bigchem.model.kernels.work import plan_work

LENGTHS = st.lists(st.tuples(st.integers(0, 130), st.integers(0, 130)), max_size=12)


def rows(items: np.ndarray, lengths: list[int], block: int) -> list[tuple[int, int]]:
    """(sequence, row) of all rows that the items cover, in order."""
    covered = []
    for sequence, first in items.tolist():
        if sequence >= 0:
            covered += [(sequence, row) for row in range(first, min(first + block, lengths[sequence]))]
    return covered


@given(lengths=LENGTHS, block=st.sampled_from([16, 32]), short=st.sampled_from([16, 32]), sequences=st.integers(1, 5))
def test_every_row_of_every_sequence_is_worked_on_once(
    lengths: list[tuple[int, int]], block: int, short: int, sequences: int
) -> None:
    queries, keys = ([pair[side] for pair in lengths] for side in (0, 1))
    plain = Tile(block, block, 4, 1)
    tiles = Tiles(plain, plain, plain, replace(plain, sequences=sequences), Tile(short, short, 4, 1, sequences))
    work = plan_work(np.array(queries, dtype=np.int64), np.array(keys, dtype=np.int64), tiles)
    assert rows(work.forward, queries, block) == [(i, r) for i, n in enumerate(queries) for r in range(n)]
    is_long = [max(pair) > short for pair in lengths]
    assert rows(work.grad_queries, queries, block) == [
        (i, r) for i, n in enumerate(queries) if is_long[i] for r in range(n)
    ]
    assert rows(work.grad_keys, keys, block) == [(i, r) for i, n in enumerate(keys) if is_long[i] for r in range(n)]
    chosen = [i for i in work.grad_short.flatten().tolist() if i >= 0]
    assert chosen == [i for i, long in enumerate(is_long) if not long]
    assert work.grad_short.shape[1] == work.grad_bias.shape[1] == sequences
    assert rows(work.grad_bias.reshape(-1, 2), queries, block) == rows(work.grad_queries, queries, block)
    for items in work:
        assert items.dtype == np.int32
        assert items.flags["C_CONTIGUOUS"]
        assert len(items) >= 2  # torch.compile takes a size of one or none for a constant
        assert (items.reshape(len(items), -1)[2:, 0] >= 0).all()  # no program idles but the two


def test_lists_have_an_entry_for_each_tile_and_not_for_the_longest_sequence_times_their_number() -> None:
    lengths = np.array([2048, *[20] * 100])
    plain = Tile(64, 64, 4, 1)
    work = plan_work(lengths, lengths, Tiles(plain, plain, plain, replace(plain, sequences=8), Tile(64, 64, 4, 1, 4)))
    assert [len(items) for items in work] == [2048 // 64 + 100, 2048 // 64, 2048 // 64, 2048 // 64 // 8, 100 // 4]
