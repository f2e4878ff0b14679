"""What the tests of fused/ compare with."""

import torch
from torch import Tensor

from bigchem.model import dropout


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest error, relative to the largest element expected."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).abs().max() / expected.abs().max())


def dropout_factors(hashes: Tensor, seed: int | None, width: int, p: float) -> Tensor:
    """float64 [T, width]: 0 or 1 / (1 - p); ones without a seed."""
    if seed is None or p == 0:
        return torch.ones(len(hashes), width, dtype=torch.float64)
    columns = dropout.column_factors(width, hashes.device)
    return dropout.kept(dropout.row_factors(hashes, seed)[:, None], columns, p).double() / (1 - p)


def token_hashes(tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(-(2**31), 2**31, (tokens,), generator=generator).int()
