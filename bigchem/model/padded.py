"""The `torch` backend: sequences of similar length in a few padded batches."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bigchem.model import dropout
from bigchem.model.layout import Layout

_BUCKET_COST = {"cpu": 4096, "cuda": 2**18}
"""Padded (query, key) pairs that cost as much as another bucket. CPU: measured; CUDA: estimated from launch times."""
_HOLE = np.float32(-1e30)
"""Score of a padding key (a hole): its probability is zero beside any real key."""


class _Places(NamedTuple):
    """The source row of each row of a rearranged tensor, and which rows are zero instead (holes)."""

    rows: Tensor
    holes: Tensor


class _Rearrange(torch.autograd.Function):
    """A gather in both directions: autograd's backward of a gather adds rows one by one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: _Places, inverse: _Places) -> Tensor:
        ctx.places, ctx.inverse = places, inverse
        return x.index_select(0, places.rows).index_fill_(0, places.holes, 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Rearrange.apply(grads[0].contiguous(), ctx.inverse, ctx.places), None, None


@dataclass(frozen=True)
class _Padding:
    """How packed rows [T * heads, D] and padded rows (bucket, sequence, head, position) map onto each other."""

    packed: _Places
    """For every padded row, its packed row."""
    padded: _Places
    """For every packed row, its padded row."""

    def pad(self, x: Tensor) -> Tensor:
        """[T, heads, D] -> [padded rows, D], zero in holes."""
        rows: Tensor = _Rearrange.apply(x.reshape(-1, x.shape[-1]), self.packed, self.padded)
        return rows

    def unpad(self, rows: Tensor, num_heads: int) -> Tensor:
        """[padded rows, D] -> [T, heads, D]."""
        packed: Tensor = _Rearrange.apply(rows, self.padded, self.packed)
        return packed.view(-1, num_heads, rows.shape[-1])


@dataclass(frozen=True)
class _Bucket:
    """Sequences of similar lengths, computed as one padded batch."""

    size: int
    max_q: int
    max_k: int
    hole_scores: Tensor | None
    """fp32 [size, 1, 1, max_k]: added to the scores to rule out padding keys; None if all sequences have max_k keys. An
    addition costs nothing in the backward pass; a masked fill would be repeated there."""


def bucketing(layout: Layout, num_heads: int) -> tuple[list[_Bucket], _Padding, _Padding]:
    """Buckets of sequences of similar length, and their paddings of queries and keys."""
    device = layout.cu_seqlens_q.device
    (start_q, num_q), (start_k, num_k) = ((cu[:-1], np.diff(cu)) for cu in layout.host)
    groups = _group(num_q, num_k, _BUCKET_COST.get(device.type, 2**18))
    buckets = []
    for group in groups:
        max_k = int(num_k[group].max())
        holes = np.arange(max_k) >= num_k[group][:, None]
        scores = np.where(holes, _HOLE, np.float32(0))[:, None, None, :]
        mask = torch.from_numpy(scores).to(device) if holes.any() else None
        buckets.append(_Bucket(len(group), int(num_q[group].max()), max_k, mask))
    queries = _padding(start_q, num_q, groups, num_heads, device)
    keys = _padding(start_k, num_k, groups, num_heads, device)
    return buckets, queries, keys


def _group(num_q: np.ndarray, num_k: np.ndarray, bucket_cost: int) -> list[np.ndarray]:
    """Splits sequences, ordered by length, into buckets: a new one whenever the padding so far costs as much as one."""
    level = np.floor(np.log2(num_q + 8) * 2)  # cross-attention then groups keys among queries of similar length
    order = np.lexsort((-num_q, -num_k, -level))
    groups: list[np.ndarray] = []
    begin = max_q = max_k = real = 0
    for end, sequence in enumerate(order):
        n, m = int(num_q[sequence]), int(num_k[sequence])
        max_q, max_k, real = max(max_q, n), max(max_k, m), real + n * m
        if max_q * max_k * (end - begin + 1) - real > bucket_cost and end > begin:
            groups.append(order[begin:end])
            begin, max_q, max_k, real = end, n, m, n * m
    return [*groups, order[begin:]] if len(order) else groups


def _padding(
    start: np.ndarray, length: np.ndarray, groups: list[np.ndarray], num_heads: int, device: torch.device
) -> _Padding:
    heads = np.arange(num_heads)[:, None]
    packed, exists = [np.empty(0, np.int64)], [np.empty(0, bool)]
    for group in groups:
        position = np.arange(length[group].max())
        real = position < length[group][:, None]
        token = np.where(real, start[group][:, None] + position, 0)
        row = token[:, None, :] * num_heads + np.where(real[:, None, :], heads, 0)  # [sequence, head, position]
        packed.append(row.ravel())
        exists.append(np.broadcast_to(real[:, None, :], row.shape).ravel())
    index, filled = np.concatenate(packed), np.concatenate(exists)
    inverse = np.empty(int(length.sum()) * num_heads, np.int64)
    inverse[index[filled]] = np.flatnonzero(filled)
    pairs = ((index, np.flatnonzero(~filled)), (inverse, np.empty(0, np.int64)))
    return _Padding(*(_Places(*(torch.from_numpy(array).to(device) for array in pair)) for pair in pairs))


def _distance_bias(bias: Tensor | None, num_q: int, num_k: int, causal: bool, device: torch.device) -> Tensor | None:
    """The bias as a matrix [heads or 1, num_q, num_k], -inf above the causal diagonal; None if it would be zero."""
    if bias is None and not causal:
        return None
    distance = torch.arange(1 - num_q, num_k, device=device)
    if bias is None:
        by_distance = torch.zeros(1, len(distance), device=device)
    else:
        reach = bias.shape[1] // 2
        by_distance = bias[:, distance.clamp(-reach, reach) + reach]
    if causal:
        by_distance = by_distance.masked_fill(distance > 0, -math.inf)
    return by_distance.unfold(1, num_k, 1).flip(1)


class _Attend(torch.autograd.Function):
    """One bucket. Changes scores in place and saves only the probabilities, which autograd would not."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        matrix: Tensor | None,
        hole_scores: Tensor | None,
        drops: tuple[Tensor, float] | None,
    ) -> Tensor:
        """q [size, heads, max_q, D], k and v [size, heads, max_k, D]; matrix [heads or 1, max_q, max_k]; drops: the
        factors of the probabilities' rows [size, heads, max_q], and the share to drop."""
        scores = (q @ k.transpose(-1, -2)).float()
        for added in (matrix, hole_scores):
            if added is not None:
                scores.add_(added)
        probabilities = scores.softmax(-1).to(v.dtype)
        factors = None if drops is None else dropout.factors(*drops, k.shape[2], v.dtype)
        ctx.save_for_backward(q, k, v, probabilities, factors)
        return (probabilities if factors is None else probabilities * factors) @ v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, probabilities, factors = ctx.saved_tensors
        grad_p = grads[0] @ v.transpose(-1, -2)
        dropped = probabilities
        if factors is not None:
            grad_p.mul_(factors)
            dropped = factors * probabilities
        grad_v = dropped.transpose(-1, -2) @ grads[0]
        grad_s = torch._softmax_backward_data(grad_p.float(), probabilities.float(), -1, torch.float32).to(q.dtype)
        grad_matrix = grad_s.sum(0, dtype=torch.float32) if ctx.needs_input_grad[3] else None
        return grad_s @ k, grad_s.transpose(-1, -2) @ q, grad_v, grad_matrix, None, None


def padded_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """`attention` by padded batches of similar lengths, with plain products: only SDPA's unfused path has a gradient
    for a bias, and it measured slower."""
    num_heads, dim = q.shape[1:]
    buckets, queries, keys = layout.derived(("padded", num_heads), lambda: bucketing(layout, num_heads))
    rows_q = [b.size * num_heads * b.max_q for b in buckets]
    rows_k = [b.size * num_heads * b.max_k for b in buckets]
    factors = [None] * len(buckets)
    if dropout_p > 0:
        each = dropout.row_factors(layout.hashes[:, None], dropout.head_seeds(seed, num_heads).to(q.device))
        factors = each.flatten()[queries.packed.rows].split(rows_q)
    parts = zip(
        *(buckets, queries.pad(q).split(rows_q), keys.pad(k).split(rows_k), keys.pad(v).split(rows_k), factors),
        strict=True,
    )
    outputs = []
    for bucket, bq, bk, bv, rows in parts:
        sq, sk, sv = (x.view(bucket.size, num_heads, -1, dim) for x in (bq, bk, bv))
        matrix = _distance_bias(bias, bucket.max_q, bucket.max_k, causal, q.device)
        drops = None if rows is None else (rows.view(bucket.size, num_heads, -1), dropout_p)
        holes = None if causal else bucket.hole_scores  # causal: holes come after every real query
        outputs.append(_Attend.apply(sq, sk, sv, matrix, holes, drops).view(-1, dim))
    return queries.unpad(torch.cat(outputs), num_heads) if outputs else torch.zeros_like(q)
