"""Dropout masks: uniform, independent, and a function of the token alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigchem.model import dropout


def mask(p: float, tokens: int = 2048, columns: int = 512, seed: int = 3, place: int = 5) -> torch.Tensor:
    hashes = torch.from_numpy(dropout.token_hashes(np.arange(tokens // 64), np.full(tokens // 64, 64)))
    rows = dropout.row_factors(hashes, dropout.place_seed(seed, place))
    return dropout.kept(rows[:, None], dropout.column_factors(columns, torch.device("cpu")), p)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_dropped_is_p_in_all_and_in_every_row_and_column(p: float) -> None:
    dropped = 1 - mask(p).double()
    assert abs(float(dropped.mean()) - p) < 5 * (p * (1 - p) / dropped.numel()) ** 0.5
    for dim, n in ((0, 2048), (1, 512)):
        spread = (dropped.mean(dim) - p) / (p * (1 - p) / n) ** 0.5  # standard normal, if independent
        assert 0.8 < float(spread.std()) < 1.2
        assert float(spread.abs().max()) < 6


def test_pairs_of_rows_and_of_columns_are_uncorrelated() -> None:
    kept = mask(0.3).double() - 0.7
    for x in (kept, kept.t()):
        n = x.shape[1]
        correlation = (x @ x.t()) / (0.21 * n)
        apart = correlation[~torch.eye(len(x), dtype=torch.bool)] * n**0.5
        assert 0.97 < float(apart.std()) < 1.03
        assert float(apart.abs().max()) < 7


def test_four_corners_of_a_rectangle_are_independent() -> None:
    """Products of two factors could tie the fourth corner to the other three."""
    x = mask(0.5).double() * 2 - 1
    corners = (x[:-1, :-1] * x[1:, :-1] * x[:-1, 1:] * x[1:, 1:]).mean()
    assert abs(float(corners)) < 5 / x.numel() ** 0.5


def test_places_and_seeds_give_unrelated_masks() -> None:
    masks = [mask(0.5, seed=seed, place=place).double() * 2 - 1 for seed in (0, 1, 2**40) for place in (0, 1)]
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert abs(float((a * b).mean())) < 5 / a.numel() ** 0.5


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(0, 7))
def test_a_tokens_hash_depends_on_its_example_and_position_alone(lengths: list[int], cut: int) -> None:
    examples, sizes = np.arange(len(lengths)) + 3, np.array(lengths)
    whole = dropout.token_hashes(examples, sizes)
    parts = [dropout.token_hashes(examples[part], sizes[part]) for part in (slice(0, cut), slice(cut, None))]
    assert whole.tolist() == np.concatenate(parts).tolist()
    assert whole.dtype == np.int32


def test_every_place_and_head_has_the_seed_of_its_number() -> None:
    seeds = dropout.place_seeds(2**40 + 3, 9)
    assert seeds == [dropout.place_seed(2**40 + 3, place) for place in range(9)]
    golden = 0x9E3779B9
    heads = [dropout.mix((seeds[4] + head * golden) & 0xFFFFFFFF) for head in range(5)]
    assert [head & 0xFFFFFFFF for head in dropout.head_seeds(seeds[4], 5).tolist()] == heads


HASHES = torch.from_numpy(dropout.token_hashes(np.arange(3), np.array([40, 1, 60])))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_what_the_mask_says_and_rescales_it_and_its_gradient(p: float, dtype: torch.dtype) -> None:
    x = torch.randn(101, 70, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    y = dropout.dropout(x, HASHES, 11, p)
    keep = dropout.kept(dropout.row_factors(HASHES, 11)[:, None], dropout.column_factors(70, x.device), p)
    scale = torch.tensor(1 / (1 - p) if p < 1 else 0.0).to(dtype)
    assert torch.equal(y, torch.where(keep, x * scale, 0))
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.where(keep, scale, 0))


def test_nothing_is_dropped_at_zero_and_everything_at_one() -> None:
    assert mask(0.0).all()
    assert not mask(1.0).any()
