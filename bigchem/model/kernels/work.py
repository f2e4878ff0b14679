"""Which sequence and rows each program of a kernel works on, from the lengths on the host.

On ragged batches, a grid over (longest length, sequences) would start mostly empty programs. These lists have an entry
for each tile with rows in it.
"""

from typing import NamedTuple

import numpy as np

from bigchem.model.kernels.tiles import Tiles


class Work(NamedTuple):
    """Lists for the kernels, all but the first of the backward pass; sequence -1 for unused entries at their ends.

    forward, grad_queries, grad_keys: int32 [items, 2], (sequence, first row). grad_bias: int32 [chunks, tiles, 2], the
    items of grad_queries. grad_short: int32 [items, sequences].
    """

    forward: np.ndarray
    grad_queries: np.ndarray
    grad_keys: np.ndarray
    grad_bias: np.ndarray
    grad_short: np.ndarray


def plan_work(lengths_q: np.ndarray, lengths_k: np.ndarray, tiles: Tiles) -> Work:
    """The lists for packed sequences of these lengths [B].

    Sequences whose queries and keys fit into grad_short's tile go there, the rest to grad_queries and grad_keys.
    """
    long = np.maximum(lengths_q, lengths_k) > tiles.grad_short.block_m
    per_program = tiles.grad_short.sequences
    return Work(
        _filled(_tiles(lengths_q, tiles.forward.block_m), 1),
        _filled(_tiles(lengths_q * long, tiles.grad_queries.block_m), 1),
        _filled(_tiles(lengths_k * long, tiles.grad_keys.block_n), 1),
        plan_bias(lengths_q * long, tiles),
        _filled(np.flatnonzero(~long), per_program).reshape(-1, per_program),
    )


def plan_bias(lengths_q: np.ndarray, tiles: Tiles) -> np.ndarray:
    """`Work.grad_bias` of sequences of these lengths, long or short."""
    each = tiles.grad_bias.sequences
    return _filled(_tiles(lengths_q, tiles.grad_bias.block_m), each).reshape(-1, each, 2)


def _tiles(lengths: np.ndarray, block: int) -> np.ndarray:
    """[items, 2]: (sequence, first row) of tiles of `block` rows; each sequence wastes less than a tile."""
    counts = -(-lengths // block)
    sequence = np.repeat(np.arange(len(lengths)), counts)
    first = block * (np.arange(len(sequence)) - np.repeat(np.cumsum(counts) - counts, counts))
    return np.stack([sequence, first], 1)


def _filled(items: np.ndarray, multiple: int) -> np.ndarray:
    """int32: items, then -1 up to a multiple: at least the second, because torch.compile takes a size of one or none
    for a constant."""
    size = multiple * max(2, -(-len(items) // multiple))
    filled = np.full((size, *items.shape[1:]), -1, dtype=np.int32)
    filled[: len(items)] = items
    return filled
