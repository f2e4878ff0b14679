"""Tile sizes of the attention kernels: a plain table, which can be read, compiled ahead of time and tested.

Not an autotuner: ragged batches have a new longest length every step, and a search during a run would stall all ranks.
No entry may spill registers: `bigchem bench kernels` compiles each for each architecture, and a test checks the report.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Kernel = Literal["forward", "grad_queries", "grad_keys", "grad_bias", "grad_short"]

KERNELS: tuple[Kernel, ...] = ("forward", "grad_queries", "grad_keys", "grad_bias", "grad_short")
ARCHITECTURES = (80, 90)
"""Compute capabilities * 10 that the table distinguishes. 80: A100 and relatives, and 12.0, which would spill registers
with Hopper's tiles. 90: H100 and B200."""

MAX_HEAD_DIM = 128


@dataclass(frozen=True)
class Tile:
    """Rows of queries (block_m) and keys (block_n) that one program multiplies at a time.

    grad_bias: block_m is that of grad_queries; block_n divides it, and is a multiple of that of grad_queries;
    `sequences`: how many tiles of queries a program adds up. grad_short: both are the longest sequence it serves;
    `sequences`: how many a program processes.
    """

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int
    sequences: int = 1


class Tiles(NamedTuple):
    """The tile of each kernel."""

    forward: Tile
    grad_queries: Tile
    grad_keys: Tile
    grad_bias: Tile
    grad_short: Tile


def padded_head_dim(head_dim: int) -> int:
    """The head dimension padded for matrix units: a power of two, at least 16."""
    return max(16, 1 << (head_dim - 1).bit_length())


def tile(kernel: Kernel, max_len: int, head_dim: int, arch: int, *, fp32: bool) -> Tile:
    """The tile of a kernel for sequences of at most max_len tokens on an architecture (80, 90, ...).

    fp32: 4-byte inputs, multiplied in ordinary registers, which need smaller tiles.
    """
    padded, hopper = padded_head_dim(head_dim), 90 <= arch < 120
    wide = padded > 64
    if fp32:
        return _FP32_APART.get((kernel, padded, hopper)) or _FP32[kernel, wide]
    table = _HOPPER if hopper else _AMPERE
    return table[kernel, wide, max_len > 512 and kernel == "forward"]


def all_tiles(max_len: int, head_dim: int, arch: int, *, fp32: bool) -> Tiles:
    """The tiles of all kernels."""
    return Tiles(*(tile(kernel, max_len, head_dim, arch, fp32=fp32) for kernel in KERNELS))


_FP32: dict[tuple[Kernel, bool], Tile] = {
    ("forward", False): Tile(16, 16, 4, 3),
    ("forward", True): Tile(16, 16, 4, 3),
    ("grad_queries", False): Tile(16, 16, 4, 2),
    ("grad_queries", True): Tile(16, 16, 8, 2),
    ("grad_keys", False): Tile(16, 16, 4, 2),
    ("grad_keys", True): Tile(16, 32, 8, 2),
    ("grad_bias", False): Tile(16, 16, 4, 2, sequences=8),
    ("grad_bias", True): Tile(16, 16, 4, 1, sequences=8),
    ("grad_short", False): Tile(16, 16, 4, 1, sequences=4),
    ("grad_short", True): Tile(16, 16, 4, 1, sequences=4),
}

_FP32_APART: dict[tuple[Kernel, int, bool], Tile] = {
    ("forward", 64, False): Tile(16, 32, 4, 2),
    ("grad_keys", 16, False): Tile(16, 32, 8, 2),
    ("grad_keys", 16, True): Tile(16, 32, 8, 2),
    ("grad_keys", 32, False): Tile(16, 32, 8, 2),
}
"""(kernel, padded head dimension, Hopper) where the tile above spills 8 bytes. These do so at other head dimensions."""

_HOPPER: dict[tuple[Kernel, bool, bool], Tile] = {
    ("forward", False, False): Tile(64, 64, 4, 2),
    ("forward", False, True): Tile(128, 64, 8, 2),
    ("forward", True, False): Tile(64, 64, 4, 2),
    ("forward", True, True): Tile(128, 64, 8, 2),
    ("grad_queries", False, False): Tile(64, 32, 4, 2),
    ("grad_queries", True, False): Tile(64, 32, 4, 2),
    ("grad_keys", False, False): Tile(32, 64, 4, 2),
    ("grad_keys", True, False): Tile(32, 64, 8, 2),
    ("grad_bias", False, False): Tile(64, 64, 4, 1, sequences=8),
    ("grad_bias", True, False): Tile(64, 32, 4, 1, sequences=8),
    ("grad_short", False, False): Tile(64, 64, 4, 1, sequences=4),
    ("grad_short", True, False): Tile(32, 32, 4, 1, sequences=4),
}
"""(kernel, head dimension over 64, sequences of over 512 tokens)"""

_AMPERE: dict[tuple[Kernel, bool, bool], Tile] = {
    ("forward", False, False): Tile(64, 32, 4, 2),
    ("forward", False, True): Tile(128, 64, 8, 2),
    ("forward", True, False): Tile(64, 32, 4, 2),
    ("forward", True, True): Tile(64, 32, 4, 2),
    ("grad_queries", False, False): Tile(32, 32, 4, 2),
    ("grad_queries", True, False): Tile(32, 32, 4, 2),
    ("grad_keys", False, False): Tile(32, 64, 8, 2),
    ("grad_keys", True, False): Tile(32, 64, 8, 2),
    ("grad_bias", False, False): Tile(32, 32, 4, 1, sequences=8),
    ("grad_bias", True, False): Tile(32, 32, 4, 1, sequences=8),
    ("grad_short", False, False): Tile(32, 32, 4, 1, sequences=4),
    ("grad_short", True, False): Tile(64, 64, 8, 1, sequences=4),
}
