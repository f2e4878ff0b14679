"""Launching the kernels: sizes of their tiles, the device, dropout's numbers."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bigchem.model import dropout


def cdiv(a: int, b: int) -> int:
    """a / b rounded up. Triton's function of this name also serves compile-time constants, and takes 10 us."""
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << (n - 1).bit_length()


class Size(NamedTuple):
    """Elements of a program's tile: rows and columns, powers of two, and warps to share them."""

    rows: int
    block: int
    num_warps: int


@cache
def whole_rows(width: int, num_warps: int) -> Size:
    """For kernels that hold whole rows: 16 elements a thread, if need be by more warps, up to rows of 8,192."""
    block = power_of_2(width)
    rows = max(1, 512 * num_warps // block)
    return Size(rows, block, min(16, max(num_warps, rows * block // 512)))


@cache
def elementwise(width: int) -> Size:
    """For kernels whose elements need only their row's and their column's number: each is hashed once a tile."""
    return Size(4, min(512, power_of_2(width)), 4)


@cache
def numbers(p: float) -> tuple[int, float]:
    """The kernels' `threshold` and `scale` for dropping a share p."""
    return dropout.threshold(p), 1 / (1 - p) if p < 1 else 0.0


def on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Makes x's device the current one, which Triton launches on. Entering torch.cuda.device costs more than to ask."""
    return _HERE if not x.is_cuda or x.get_device() == torch.cuda.current_device() else torch.cuda.device(x.device)


_HERE: AbstractContextManager[None] = nullcontext()
