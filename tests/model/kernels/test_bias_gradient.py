import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.model.kernels.bias_gradient import partial_size, places, short_places, slots


def diagonals(x: np.ndarray, columns: int) -> np.ndarray:
    """What device.store_diagonals writes: [rows // columns + 1, columns], the diagonal column - row = c - k * columns
    at [k, c]."""
    out = np.zeros((x.shape[0] // columns + 1, columns))
    for (row, column), value in np.ndenumerate(x):
        difference = column - row
        out[-(difference // columns), difference % columns] += value
    return out


def gathered(partial: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """What `backward.sum_partials` adds up for each distance."""
    return np.where(chosen < 0, 0.0, partial[np.maximum(chosen, 0)]).sum(0)


def with_sums(tile: np.ndarray, distance: np.ndarray, reach: int, sums: np.ndarray) -> np.ndarray:
    """What a program stores of a tile: its diagonals, then the sums of distances beyond the reach."""
    ends = [tile[distance <= -reach].sum(), tile[distance >= reach].sum()]
    return np.concatenate([sums.ravel(), ends])


def partial_of(ds: np.ndarray, m0: int, reach: int, block_m: int, block_n: int, causal: bool, far: bool) -> np.ndarray:
    """The partial of one tile of queries, from the scores' gradients ds [queries, keys]; the far sums come last."""
    first, count = slots(reach, block_m, block_n, causal)
    size = block_m + block_n + 2
    partial = np.zeros(count * size + 2)
    block = np.zeros((block_m, ds.shape[1] + block_n))
    rows = ds[m0 : m0 + block_m]
    block[: len(rows), : ds.shape[1]] = rows
    for n0 in range(0, ds.shape[1], block_n):
        tile = block[:, n0 : n0 + block_n]
        distance = n0 - m0 + np.arange(block_n)[None, :] - np.arange(block_m)[:, None]
        slot = (n0 - m0) // block_n - first
        if 0 <= slot < count:
            partial[slot * size : (slot + 1) * size] += with_sums(tile, distance, reach, diagonals(tile, block_n))
        elif slot < 0 or not causal:
            assert (np.abs(distance) >= reach).all() or not tile.any(), "a near tile without a slot"
            partial[-2 if slot < 0 else -1] += tile.sum()
    assert partial_size(reach, block_m, block_n, causal, far) == len(partial) - 2 * (not far)
    return partial


@given(
    reach=st.integers(1, 60),
    block_n=st.sampled_from([4, 8, 16]),
    ratio=st.sampled_from([1, 2, 4]),
    causal=st.booleans(),
    far=st.booleans(),
    length=st.integers(1, 70),
)
def test_places_gather_the_sum_of_each_distance(
    reach: int, block_n: int, ratio: int, causal: bool, far: bool, length: int
) -> None:
    block_m = block_n * ratio
    ds = np.random.default_rng(0).normal(size=(length, length))
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    clamped = np.clip(distance, -reach, reach)
    seen = np.where(distance > 0, 0, ds) if causal else ds
    expected = [seen[clamped == d].sum() for d in range(-reach, reach + 1)]
    # The kernel leaves in what a causal query does not see; only diagonals after the query hold it.
    parts = [partial_of(ds, m0, reach, block_m, block_n, causal, far) for m0 in range(0, length, block_m)]
    total = sum(parts)
    found = gathered(total, places(reach, block_m, block_n, causal, far))
    if not far:  # grad_queries sums far tiles, and masks
        low, high = total[-2:]
        found[0] += low
        found[-1] += 0.0 if causal else high
    np.testing.assert_allclose(found, expected, atol=1e-9)


@given(reach=st.integers(1, 40), length=st.integers(1, 16), causal=st.booleans())
def test_short_places_do_the_same(reach: int, length: int, causal: bool) -> None:
    block = 16
    ds = np.random.default_rng(0).normal(size=(length, length))
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    ds = np.where(distance > 0, 0, ds) if causal else ds
    tile = np.zeros((block, block))
    tile[:length, :length] = ds
    partial = with_sums(ds, distance, reach, diagonals(tile, block))
    found = gathered(partial, short_places(reach, block, causal))
    clamped = np.clip(distance, -reach, reach)
    np.testing.assert_allclose(found, [ds[clamped == d].sum() for d in range(-reach, reach + 1)], atol=1e-9)


@pytest.mark.parametrize(
    ("reach", "causal", "expected"), [(91, False, (-2, 5)), (113, True, (-2, 3)), (1, False, (0, 1))]
)
def test_t5_needs_few_slots_of_64(reach: int, causal: bool, expected: tuple[int, int]) -> None:
    assert slots(reach, 64, 64, causal) == expected
