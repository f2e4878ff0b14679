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


@dataclass(frozen=True)
class _Padding:
    """How packed rows [T * heads, D] and padded rows (bucket, sequence, head, position) map onto each other."""

    packed: _Places
    """For every padded row, its packed row."""
    padded: _Places
    """For every packed row, its padded row."""

    def pad(self, x: Tensor, *, clear: bool) -> Tensor:
        """[T, heads, D] -> [padded rows, D]. Holes are zero if cleared, else some row of x."""
        rows = x.reshape(-1, x.shape[-1]).index_select(0, self.packed.rows)
        return rows.index_fill_(0, self.packed.holes, 0) if clear else rows

    def unpad(self, rows: Tensor, num_heads: int) -> Tensor:
        """[padded rows, D] -> [T, heads, D]."""
        return rows.index_select(0, self.padded.rows).view(-1, num_heads, rows.shape[-1])


class _Bucket(NamedTuple):
    """Sequences of similar lengths, computed as one padded batch."""

    size: int
    max_q: int
    max_k: int
    hole_scores: Tensor | None
    """fp32 [size, 1, 1, max_k]: added to the scores to rule out padding keys; None if all sequences have max_k keys."""


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


def _distances(num_q: int, num_k: int, reach: int, device: torch.device) -> Tensor:
    """Places in a bias [heads, 2 * reach + 1] of the distances 1 - num_q to num_k - 1."""
    return torch.arange(1 - num_q, num_k).clamp_(-reach, reach).add_(reach).to(device)


def _bias_matrix(bias: Tensor, num_q: int, num_k: int) -> Tensor:
    """The bias as a matrix [heads, num_q, num_k]."""
    by_distance = bias[:, _distances(num_q, num_k, bias.shape[1] // 2, bias.device)]
    return by_distance.unfold(1, num_k, 1).flip(1)


def _add_diagonals(grad_bias: Tensor, grad_scores: Tensor) -> None:
    """Adds the gradient of a bucket's scores [sequences, heads, num_q, num_k] to that of its bias [heads, 2R + 1]."""
    _, heads, num_q, num_k = grad_scores.shape
    width = num_q + num_k - 1
    # A row for each query and a column for each distance: each row's keys start one column before the last row's.
    by_distance = grad_bias.new_zeros(heads, num_q, width)
    keys = by_distance.as_strided((heads, num_q, num_k), (num_q * width, max(1, width - 1), 1), num_q - 1)
    torch.sum(grad_scores, 0, dtype=torch.float32, out=keys)
    places = _distances(num_q, num_k, grad_bias.shape[1] // 2, grad_bias.device)
    grad_bias.index_add_(1, places, by_distance.sum(1))


class _Pieces(NamedTuple):
    """The buckets, and how their rows are packed."""

    buckets: list[_Bucket]
    queries: _Padding
    keys: _Padding
    num_heads: int

    def of_queries(self, rows: Tensor) -> list[Tensor]:
        """[padded rows, ...] -> for each bucket [size * heads, max_q, ...], views."""
        return _split(rows, [(b.size * self.num_heads, b.max_q) for b in self.buckets])

    def of_keys(self, rows: Tensor) -> list[Tensor]:
        """of_queries for rows of keys."""
        return _split(rows, [(b.size * self.num_heads, b.max_k) for b in self.buckets])

    def added_to_scores(self, bias: Tensor | None, causal: bool, device: torch.device) -> list[Tensor | None]:
        """For each bucket [size * heads, max_q or 1, max_k] fp32: the bias, -inf above the causal diagonal and what
        rules out holes; None for nothing."""
        return [self._added(bucket, bias, causal, device) for bucket in self.buckets]

    def _added(self, bucket: _Bucket, bias: Tensor | None, causal: bool, device: torch.device) -> Tensor | None:
        size, num_q, num_k, added = bucket
        if bias is not None and num_q:
            matrix = _bias_matrix(bias, num_q, num_k)
            added = matrix if added is None else matrix + added
        if causal:
            above = torch.full((num_q, num_k), -math.inf, device=device).triu_(1)
            added = above if added is None else added + above
        if added is None:
            return None
        return added.expand(size, self.num_heads, -1, -1).flatten(0, 1)


def _split(rows: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
    parts = rows.split([n * length for n, length in sizes])
    return [x.view(*size, *rows.shape[1:]) for x, size in zip(parts, sizes, strict=True)]


class _Attend(torch.autograd.Function):
    """All buckets. Products are written where they belong, scores are changed in place, and only the probabilities are
    saved, none of which autograd would do."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        pieces: _Pieces,
        added: list[Tensor | None],
        drops: tuple[Tensor, float] | None,
    ) -> Tensor:
        """q [Tq, heads, D], k and v [Tk, heads, D]; bias [heads, 2R + 1]: for its gradient, its values are in what is
        added to the scores; drops: the factors of the probabilities' rows [padded rows], and the share to drop."""
        buckets, queries, keys, num_heads = pieces
        # Queries in holes get no gradient, keys in holes no probability; a query without keys averages values in holes.
        rows = queries.pad(q, clear=False), keys.pad(k, clear=False), keys.pad(v, clear=True)
        out = torch.empty_like(rows[0])
        each = [pieces.of_queries(rows[0]), *map(pieces.of_keys, rows[1:]), pieces.of_queries(out)]
        row_factors = [] if drops is None else pieces.of_queries(drops[0])
        saved, factors = [], []
        for i, (bucket, bq, bk, bv, bo) in enumerate(zip(buckets, *each, strict=True)):
            scores = torch.bmm(bq, bk.transpose(1, 2)).float()
            if (addend := added[i]) is not None:
                scores.add_(addend)
            probabilities = scores.softmax(-1).to(v.dtype)
            saved.append(probabilities)
            if drops is not None:
                factors.append(dropout.factors(row_factors[i], drops[1], bucket.max_k, v.dtype))
                probabilities = probabilities * factors[i]
            torch.bmm(probabilities, bv, out=bo)
        ctx.save_for_backward(*rows, *saved, *factors)
        ctx.pieces, ctx.bias_shape = pieces, None if bias is None else bias.shape
        return queries.unpad(out, num_heads)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        buckets, queries, keys, num_heads = pieces = ctx.pieces
        tensors = ctx.saved_tensors  # once: a checkpointed block recomputes them for one reading only
        rows, saved = tensors[:3], tensors[3:]
        grad_rows = [torch.empty_like(x) for x in rows]
        padded = [pieces.of_queries(queries.pad(grads[0], clear=True))]
        for q, k, v in (rows, grad_rows):
            padded += [pieces.of_queries(q), pieces.of_keys(k), pieces.of_keys(v)]
        grad_bias = None
        if ctx.needs_input_grad[3]:
            grad_bias = torch.zeros(ctx.bias_shape, device=grads[0].device)
        for i, (bucket, grad, q, k, v, grad_q, grad_k, grad_v) in enumerate(zip(buckets, *padded, strict=True)):
            dropped = probabilities = saved[i]
            grad_p = torch.bmm(grad, v.transpose(1, 2))
            if len(saved) > len(buckets):
                factors = saved[len(buckets) + i]
                grad_p.mul_(factors)
                dropped = factors * probabilities
            torch.bmm(dropped.transpose(1, 2), grad, out=grad_v)
            grad_s = torch._softmax_backward_data(grad_p.float(), probabilities.float(), -1, torch.float32).to(q.dtype)
            torch.bmm(grad_s, k, out=grad_q)
            torch.bmm(grad_s.transpose(1, 2), q, out=grad_k)
            if grad_bias is not None and bucket.max_q:
                _add_diagonals(grad_bias, grad_s.view(bucket.size, num_heads, bucket.max_q, bucket.max_k))
        places = queries, keys, keys
        found = [place.unpad(x, num_heads) for place, x in zip(places, grad_rows, strict=True)]
        return *found, grad_bias, None, None, None


def padded_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """`attention` by padded batches of similar lengths, with plain products: only SDPA's unfused path has a gradient
    for a bias, and it measured slower."""
    num_heads = q.shape[1]
    pieces = layout.derived(("padded", num_heads), lambda: _Pieces(*bucketing(layout, num_heads), num_heads))
    if not pieces.buckets:
        return torch.zeros_like(q)
    drops = None
    if dropout_p > 0:
        each = dropout.row_factors(layout.hashes[:, None], dropout.head_seeds(seed, num_heads).to(q.device))
        drops = each.flatten()[pieces.queries.packed.rows], dropout_p

    def make(bias: Tensor | None, causal: bool) -> list[Tensor | None]:
        return pieces.added_to_scores(None if bias is None else bias.detach(), causal, q.device)

    added = make(None, causal) if bias is None else layout.table(bias, causal, make)
    out: Tensor = _Attend.apply(q, k, v, bias, pieces, added, drops)
    return out
