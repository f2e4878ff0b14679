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


def partial_of(ds: np.ndarray, m0: int, reach: int, block_m: int, block_n: int, causal: bool) -> np.ndarray:
    """One program's partial, from the scores' gradients ds [queries, keys]."""
    first, count = slots(reach, block_m, block_n, causal)
    partial = np.zeros(partial_size(reach, block_m, block_n, causal))
    block = np.zeros((block_m, ds.shape[1] + block_n))
    rows = ds[m0 : m0 + block_m]
    block[: len(rows), : ds.shape[1]] = rows
    for n0 in range(0, ds.shape[1], block_n):
        tile = block[:, n0 : n0 + block_n].copy()
        distance = n0 - m0 + np.arange(block_n)[None, :] - np.arange(block_m)[:, None]
        partial[-2] += tile[distance <= -reach].sum()
        partial[-1] += tile[distance >= reach].sum()
        tile[np.abs(distance) >= reach] = 0
        number = (n0 - m0) // block_n - first
        if 0 <= number < count:
            size = block_m + block_n
            partial[number * size : (number + 1) * size] += diagonals(tile, block_n).ravel()
        else:
            assert not tile.any(), "a near tile without a slot"
    return partial


@given(
    reach=st.integers(1, 60),
    block_n=st.sampled_from([4, 8, 16]),
    ratio=st.sampled_from([1, 2, 4]),
    causal=st.booleans(),
    length=st.integers(1, 70),
)
def test_places_gather_the_sum_of_each_distance(
    reach: int, block_n: int, ratio: int, causal: bool, length: int
) -> None:
    block_m = block_n * ratio
    ds = np.random.default_rng(0).normal(size=(length, length))
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    if causal:
        ds[distance > 0] = 0
    total = sum(partial_of(ds, m0, reach, block_m, block_n, causal) for m0 in range(0, length, block_m))
    found = np.append(total, 0.0)[places(reach, block_m, block_n, causal)].sum(0)
    clamped = np.clip(distance, -reach, reach)
    expected = [ds[clamped == d].sum() for d in range(-reach, reach + 1)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@given(reach=st.integers(1, 40), length=st.integers(1, 16))
def test_short_places_do_the_same_with_keys_down(reach: int, length: int) -> None:
    block = 16
    ds = np.random.default_rng(0).normal(size=(length, length))
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    tile = np.zeros((block, block))
    tile[:length, :length] = np.where(np.abs(distance) < reach, ds, 0).T
    partial = np.concatenate(
        [diagonals(tile, block).ravel(), [ds[distance <= -reach].sum(), ds[distance >= reach].sum()], [0.0]]
    )
    found = partial[short_places(reach, block)].sum(0)
    clamped = np.clip(distance, -reach, reach)
    np.testing.assert_allclose(found, [ds[clamped == d].sum() for d in range(-reach, reach + 1)], atol=1e-9)


@pytest.mark.parametrize(
    ("reach", "causal", "expected"), [(91, False, (-2, 5)), (113, True, (-2, 3)), (1, False, (0, 1))]
)
def test_t5_needs_few_slots_of_64(reach: int, causal: bool, expected: tuple[int, int]) -> None:
    assert slots(reach, 64, 64, causal) == expected
