"""Numbers without gaps for the rows that a run trains on, at one bit per row whatever their share. Pure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bigchem.data.ragged import IntArray

WORD = 64
"""Rows whose bits are counted together."""


class RowSubset:
    """A subset of rows 0..rows-1, numbered in order; 8 MB for 33 M rows.

    bits: [words, 8] one bit per row, in groups of WORD; see `of`.
    """

    def __init__(self, rows: int, bits: npt.NDArray[np.uint8]) -> None:
        self.rows, self._bits = rows, bits
        counts = np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
        self._before: IntArray = np.cumsum(counts) - counts  # selected rows before each word
        self.size = int(counts.sum())

    @staticmethod
    def of(masks: list[npt.NDArray[np.bool_]]) -> RowSubset:
        """From consecutive masks [rows], each but the last a multiple of WORD rows long."""
        rows = sum(len(mask) for mask in masks)
        packed = np.concatenate([np.zeros(0, dtype=np.uint8), *(np.packbits(mask) for mask in masks)])
        bits = np.zeros(-(-rows // WORD) * (WORD // 8), dtype=np.uint8)
        bits[: len(packed)] = packed
        return RowSubset(rows, bits.reshape(-1, WORD // 8))

    def stored(self, numbers: IntArray) -> IntArray:
        """Rows [n] with these numbers [n] in the subset."""
        if self.size == self.rows:
            return numbers
        word = np.searchsorted(self._before, numbers, side="right") - 1
        rank = numbers - self._before[word]
        upto = np.cumsum(np.unpackbits(self._bits[word], axis=1), axis=1, dtype=np.uint8)
        rows: IntArray = WORD * word + (upto == (rank + 1)[:, None]).argmax(axis=1)
        return rows

    def mask(self) -> npt.NDArray[np.bool_]:
        """[rows] whether each row is in the subset."""
        return np.unpackbits(self._bits.reshape(-1), count=self.rows).astype(bool)
