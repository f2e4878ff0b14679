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
    return _int32(mix(example ^ position))


def place_seed(seed: int, place: int) -> int:
    """Seed of one place in the model that drops (a sublayer's output, an attention's probabilities): int32."""
    return place_seeds(seed, place + 1)[place]


def place_seeds(seed: int, places: int) -> list[int]:
    """`place_seed` of places 0 to places - 1."""
    folded = mix((seed ^ (seed >> 32)) & 0xFFFFFFFF)
    seeds: list[int] = _int32(mix((folded + np.arange(places) * _GOLDEN) & 0xFFFFFFFF)).tolist()
    return seeds


def head_seeds(seed: int, heads: int) -> Tensor:
    """int32 [heads]: seeds of an attention's heads, from its place's."""
    return torch.from_numpy(_int32(mix((seed + np.arange(heads) * _GOLDEN) & 0xFFFFFFFF)))


def row_factors(hashes: Tensor, seed: int | Tensor) -> Tensor:
    """Odd int32 factors of rows. hashes: of tokens, int32; seed: of a place or of heads; their shapes broadcast."""
    mixed: Tensor = mix((hashes.long() ^ seed) & 0xFFFFFFFF) | 1
    return mixed.int()  # keeps the low 32 bits


def column_factors(columns: int, device: torch.device) -> Tensor:
    """Odd int32 factors of columns 0 to columns - 1."""
    mixed: Tensor = mix(torch.arange(columns, device=device) + _GOLDEN) | 1
    return mixed.int()


_column_factors = cache(column_factors)  # Dynamo would warn of a cache


def threshold(p: float) -> int:
    """An element is kept if its bits, read as a signed int32, are at least this; p: share to drop."""
    return min(2**31 - 1, round(p * 2**32) - 2**31)


def kept(rows: Tensor, columns: Tensor, p: float) -> Tensor:
    """bool: which elements are kept. rows and columns: factors whose shapes broadcast."""
    return rows * columns >= threshold(p)


def factors(rows: Tensor, p: float, columns: int, dtype: torch.dtype) -> Tensor:
    """0 or 1 / (1 - p) for each element [..., columns] of rows with these factors [...]."""
    scale = 1 / (1 - p) if p < 1 else 0.0
    each = _column_factors(columns, rows.device)
    if dtype != torch.float32:
        return kept(rows[..., None], each, p).to(dtype).mul_(scale)
    # In place, and 0 or 1 times the bits of the scale: 0.9 ns an element on one core, torch's own dropout 4.5.
    bits = (rows[..., None] * each).ge_(threshold(p)).mul_(int(np.float32(scale).view(np.int32)))
    return bits.view(dtype)


def drop(x: Tensor, rows: Tensor, p: float) -> Tensor:
    """Zeroes each element of x [..., columns] with probability p and rescales the rest. rows [...]: their factors."""
    if p == 0.0:
        return x
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        return x * factors(rows, p, x.shape[-1], x.dtype)
    keep = kept(rows[..., None], column_factors(x.shape[-1], x.device), p)
    return torch.where(keep, x * (1 / (1 - p) if p < 1 else 0.0), 0.0)


def dropout(x: Tensor, hashes: Tensor, seed: int, p: float) -> Tensor:
    """Dropout of x [T, columns] at one place, whose seed is from `place_seed`. hashes: of its tokens, int32 [T]."""
    return x if p == 0.0 else drop(x, row_factors(hashes, seed), p)


def _int32(x: np.ndarray) -> np.ndarray:
    """int64 values below 2^32 as int32 with the same bits."""
    return x.astype(np.uint32).view(np.int32)
