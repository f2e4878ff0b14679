"""From the kernels' partial sums to the bias gradient: which numbers add up to each distance's. Pure.

A tile of block_m queries and block_n keys, at (m0, n0), sums ds along its diagonals into a slot of
[block_m // block_n + 1, block_n] numbers; the diagonal at [k, c] has the distance n0 - m0 + c - k * block_n. As n0 - m0
is a multiple of block_n, the slot's number (n0 - m0) // block_n determines its distances, the same in every program. So
a program's partial is [slots of near tiles, sum of distances <= -reach, sum of distances >= reach], partials are added
over programs, and each distance has a few places in the sum.
"""

from functools import cache

import numpy as np


def slots(reach: int, block_m: int, block_n: int, causal: bool) -> tuple[int, int]:
    """(first slot number, count) of the tiles that have a distance between -reach and reach, exclusive."""
    first = -(-(-(reach + block_n - 1) // block_n) - 1)
    last = block_m // block_n - 1 if causal else -(-(reach + block_m - 1) // block_n) - 1
    return first, max(0, last - first + 1)


def partial_size(reach: int, block_m: int, block_n: int, causal: bool) -> int:
    """Length of one program's partial in grad_queries."""
    return slots(reach, block_m, block_n, causal)[1] * (block_m + block_n) + 2


@cache
def places(reach: int, block_m: int, block_n: int, causal: bool) -> np.ndarray:
    """int64 [parts, 2 * reach + 1]: for each distance, the places in grad_queries' partial that add up to its gradient;
    unused entries are `partial_size`, one past its end."""
    first, count = slots(reach, block_m, block_n, causal)
    size = partial_size(reach, block_m, block_n, causal)
    pieces = block_m // block_n + 1
    distance = np.arange(-reach, reach + 1)
    chosen = np.full((pieces, len(distance)), size)
    for k in range(pieces):
        # distance = (number - k) * block_n + c with 0 <= c < block_n
        number = distance // block_n + k
        inside = (number >= first) & (number < first + count)
        place = ((number - first) * pieces + k) * block_n + distance % block_n
        chosen[k, inside] = place[inside]
    return _with_ends(chosen, size)


@cache
def short_places(reach: int, block: int) -> np.ndarray:
    """`places` for grad_short, whose tile has keys down: the diagonal at [k, c] has the distance k * block - c."""
    size = 2 * block + 2
    distance = np.arange(-reach, reach + 1)
    chosen = np.where(distance <= 0, -distance, 2 * block - distance)
    chosen[np.abs(distance) >= block] = size
    return _with_ends(chosen[None], size)


def _with_ends(chosen: np.ndarray, size: int) -> np.ndarray:
    chosen[:, [0, -1]] = size
    chosen[0, 0], chosen[0, -1] = size - 2, size - 1
    return chosen
