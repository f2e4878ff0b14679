"""Index arithmetic for rows of different lengths, concatenated in a flat array. Pure."""

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def row_offsets(counts: IntArray) -> IntArray:
    """Offset of each element in its row: 0..counts[0]-1, 0..counts[1]-1, ... [sum(counts)]."""
    return row_ranges(np.zeros(len(counts), dtype=np.int64), counts)


def row_ranges(starts: IntArray, counts: IntArray) -> IntArray:
    """start, start + 1, ..., start + count - 1 of every row [sum(counts)]."""
    before = np.cumsum(counts) - counts
    indices: IntArray = np.repeat(starts - before, counts) + np.arange(counts.sum())
    return indices
