"""Which elements dropout keeps: a function of (seed, token, place, column), and of nothing else.

A token is an example's number in its step and a position in it. So the masks, and with them the loss curve, are the
same on any number of ranks, for any division into micro-batches, in every backend and kernel.

An element's 32 bits are the product, modulo 2^32, of an odd hash of its row and an odd hash of its column: multiply-
shift hashing (Dietzfelbinger et al., J. Algorithms 25, 1997). Its high bits are uniform and pairwise independent, and
one multiplication and one comparison per element cost less than a generator.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B9


def mix(x: Any) -> Any:
    """A bijection of uint32 whose every output bit depends on every input bit (Wellons' lowbias32): of an int, or of
    int64 arrays or tensors with values below 2^32."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def token_hashes(examples: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """int32 [T]: a hash of each token of packed examples. examples [B]: their numbers in the step; lengths [B]."""
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = np.arange(int(lengths.sum()), dtype=np.int64) - first
    example = np.repeat(mix(np.asarray(examples, dtype=np.int64)), lengths)
    hashes: np.ndarray = mix(example ^ position).astype(np.uint32).view(np.int32)
    return hashes


def place_seed(seed: int, place: int) -> int:
    """Seed of one place in the model that drops (a sublayer's output, a head's probabilities): int32."""
    folded = mix((seed ^ (seed >> 32)) & 0xFFFFFFFF)
    return _int32(mix((folded + place * _GOLDEN) & 0xFFFFFFFF))


def row_factors(hashes: Tensor, place: int | Tensor) -> Tensor:
    """Odd int32 factors of rows. hashes: of tokens, int32; place: from place_seed; their shapes broadcast."""
    mixed = mix((hashes.long() ^ place) & 0xFFFFFFFF) | 1
    return mixed.int()  # keeps the low 32 bits


@cache
def column_factors(columns: int, device: torch.device) -> Tensor:
    """Odd int32 factors of columns 0 to columns - 1."""
    return (mix(torch.arange(columns) + _GOLDEN) | 1).int().to(device)


def threshold(p: float) -> int:
    """An element is kept if its bits, read as a signed int32, are at least this; p: share to drop."""
    return min(2**31 - 1, round(p * 2**32) - 2**31)


def kept(rows: Tensor, columns: Tensor, p: float) -> Tensor:
    """bool: which elements are kept. rows and columns: factors whose shapes broadcast."""
    return rows * columns >= threshold(p)


def _int32(x: int) -> int:
    return x - 2**32 if x >= 2**31 else x
