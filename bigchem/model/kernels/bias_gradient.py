"""From the kernels' partial sums to the bias gradient: which numbers add up to each distance's. Pure.

A tile of block_m queries and block_n keys, at (m0, n0), has a slot, (n0 - m0) // block_n, which determines its
distances. `grad_bias` sums ds over tiles of a slot, then along diagonals: the diagonal at [k, c] of
[block_m // block_n + 1, block_n] numbers has the distance slot * block_n + c - k * block_n. Its partial is [slots,
diagonals, sum of distances <= -reach, sum of distances >= reach], and, if it sums far tiles too, their two sums.
"""

from functools import cache

import numpy as np

MARGIN = 256
"""How far the kernels' table of the bias goes beyond the reach: at least block_m + block_n of any tile."""


def slots(reach: int, block_m: int, block_n: int, causal: bool) -> tuple[int, int]:
    """(first slot, count) of the tiles that have a distance between -reach and reach, exclusive."""
    first = -(-(-(reach + block_n - 1) // block_n) - 1)
    last = block_m // block_n - 1 if causal else -(-(reach + block_m - 1) // block_n) - 1
    return first, max(0, last - first + 1)


def partial_size(reach: int, block_m: int, block_n: int, causal: bool, far: bool) -> int:
    """Length of one chunk's partial in grad_bias. far: whether it sums far tiles too."""
    return slots(reach, block_m, block_n, causal)[1] * (block_m + block_n + 2) + 2 * far


@cache
def places(reach: int, block_m: int, block_n: int, causal: bool, far: bool) -> np.ndarray:
    """int32 [parts, 2 * reach + 1]: for each distance, the places in grad_bias' partial that add up to its gradient; -1
    for none. Causal: no key comes after its query, whatever the partial says."""
    first, count = slots(reach, block_m, block_n, causal)
    slot_size, pieces = block_m + block_n + 2, block_m // block_n + 1
    distance = np.arange(-reach, reach + 1)
    chosen = np.full((max(pieces, count + far), len(distance)), -1, dtype=np.int32)
    for k in range(pieces):
        # distance = (slot - k) * block_n + c with 0 <= c < block_n
        slot = distance // block_n + k
        inside = (slot >= first) & (slot < first + count)
        place = (slot - first) * slot_size + k * block_n + distance % block_n
        chosen[k, inside] = place[inside]
    ends = np.arange(count) * slot_size + block_m + block_n
    if far:
        ends = np.append(ends, count * slot_size)
    return _with_ends(chosen, ends, causal)


@cache
def short_places(reach: int, block: int, causal: bool) -> np.ndarray:
    """`places` for grad_short, whose only slot is 0."""
    distance = np.arange(-reach, reach + 1)
    chosen = np.where(distance >= 0, distance, 2 * block + distance)
    chosen[np.abs(distance) >= block] = -1
    return _with_ends(chosen[None].astype(np.int32), np.array([2 * block]), causal)


def _with_ends(chosen: np.ndarray, ends: np.ndarray, causal: bool) -> np.ndarray:
    """ends: places of sums of distances <= -reach; those of distances >= reach follow each."""
    chosen[:, [0, -1]] = -1
    chosen[: len(ends), 0], chosen[: len(ends), -1] = ends, ends + 1
    if causal:
        chosen[:, chosen.shape[1] // 2 + 1 :] = -1
    return chosen
