"""Which sequence and rows each program of a kernel works on, computed on the device, without reading lengths back.

On ragged batches, a grid over (longest length, sequences) would start mostly empty programs. These lists have the
maximum length for the numbers of tokens and sequences; unused entries at their ends are -1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from bigchem.model.kernels.tiles import Tiles


class Work(NamedTuple):
    """Lists for the four kernels, the last three of the backward pass.

    forward, grad_queries, grad_keys: int32 [items, 2], (sequence, first row). grad_short: int32 [items, sequences].
    """

    forward: Tensor
    grad_queries: Tensor
    grad_keys: Tensor
    grad_short: Tensor


def plan_work(cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, num_q: int, num_k: int, tiles: Tiles) -> Work:
    """The lists for sequences of packed rows; num_q, num_k: total rows.

    Sequences whose queries and keys fit into grad_short's tile go there, the rest to grad_queries and grad_keys.
    """
    lengths_q, lengths_k = cu_seqlens_q.diff(), cu_seqlens_k.diff()
    long = torch.maximum(lengths_q, lengths_k) > tiles.grad_short.block_m
    return Work(
        _tiles(lengths_q, num_q, tiles.forward.block_m),
        _tiles(lengths_q * long, num_q, tiles.grad_queries.block_m),
        _tiles(lengths_k * long, num_k, tiles.grad_keys.block_n),
        _chosen(~long, tiles.grad_short.sequences),
    )


def _tiles(lengths: Tensor, num_rows: int, block: int) -> Tensor:
    """[(sequence, first row)] of tiles of `block` rows; each sequence wastes less than a tile."""
    if not len(lengths):
        return lengths.new_zeros(0, 2)
    limit = -(-num_rows // block) + len(lengths)
    tiles = (lengths + (block - 1)) // block
    ends = tiles.cumsum(0)
    item = torch.arange(limit, device=lengths.device)
    sequence = torch.searchsorted(ends, item, right=True)
    exists = sequence < len(lengths)
    sequence = sequence.clamp_max(len(lengths) - 1)
    first = (item - ends[sequence] + tiles[sequence]) * block
    return torch.stack([torch.where(exists, sequence, -1), torch.where(exists, first, 0)], 1).int()


def _chosen(wanted: Tensor, columns: int) -> Tensor:
    """Numbers of the wanted sequences, in rows of `columns`."""
    # At least two rows: torch.compile treats a size of one as a constant.
    shape = max(2, len(wanted) // columns + 1), columns
    listed = torch.full(shape, -1, dtype=torch.int32, device=wanted.device)
    number = torch.arange(len(wanted), dtype=torch.int32, device=wanted.device)
    # Unwanted sequences write -1 past the end of the wanted ones.
    place = torch.where(wanted, wanted.cumsum(0) - 1, len(wanted))
    listed.view(-1).scatter_(0, place, torch.where(wanted, number, -1))
    return listed
