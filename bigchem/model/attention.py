"""Attention over packed sequences with T5's relative-position bias: one function, several backends.

Words. A *layout* says which packed rows attend to which; it is built once per batch and kind of attention and shared by
all layers. The *bias* is a vector over distances: T5's bias depends only on key position minus query position and
saturates, so a stack needs [heads, 2R + 1] numbers, R = the largest distance told apart, and no [queries, keys] matrix.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bigchem.errors import UserError, unknown
from bigchem.model.functional import dropout

KINDS = ("encoder_self", "decoder_self", "cross")
"""Kinds of attention. The first two have a bias, the second is causal."""


# --- relative positions --------------------------------------------------------------------------------------------


@cache
def relative_buckets(bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """Bucket of every distance -R..R (key minus query, R = max_distance): int64 [2R + 1], on the CPU.

    The float32 steps are transformers' own (T5Attention._relative_position_bucket), because distances such as 16, 32
    and 64 lie on bucket boundaries and fall to the other side in another precision or on another device.
    """
    distance = torch.arange(-max_distance, max_distance + 1)
    offset = torch.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        offset = (distance > 0).long() * num_buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp_min(0)
    exact = num_buckets // 2
    logarithmic = torch.log(distance.float() / exact) / math.log(max_distance / exact) * (num_buckets - exact)
    far = (exact + logarithmic.clamp_min(0).long()).clamp_max(num_buckets - 1)
    return offset + torch.where(distance < exact, distance, far)


def relative_bias(table: nn.Embedding, bidirectional: bool, max_distance: int) -> Tensor:
    """A stack's bias [heads, 2 * max_distance + 1] fp32 from its table [buckets, heads].

    Goes through the module's forward, so that ZeRO-3 gathers the table; autograd sums the gradient back into buckets.
    """
    buckets = relative_buckets(bidirectional, table.num_embeddings, max_distance)
    values: Tensor = table(buckets.to(table.weight.device))
    return values.float().t().contiguous()


# --- layout --------------------------------------------------------------------------------------------------------

_BUCKET_COST = {"cpu": 4096, "cuda": 2**18}
"""Padded (query, key) pairs worth one more bucket. CPU: measured; CUDA: estimated from launch times."""


class _Places(NamedTuple):
    """Where the rows of a rearranged tensor come from: the source row of each, and which are zero (holes) instead."""

    rows: Tensor
    holes: Tensor


class _Rearrange(torch.autograd.Function):
    """A gather both ways: autograd's own backward of a gather adds rows one by one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: _Places, back: _Places) -> Tensor:
        ctx.there, ctx.back = there, back
        return x.index_select(0, there.rows).index_fill_(0, there.holes, 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Rearrange.apply(grads[0].contiguous(), ctx.back, ctx.there), None, None


@dataclass(frozen=True)
class _Padding:
    """How packed rows [T * heads, D] and padded rows (bucket, sequence, head, position) map onto each other."""

    packed: _Places
    """Of every padded row."""
    padded: _Places
    """Of every packed row."""

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
    key_holes: Tensor | None
    """bool [size, 1, 1, max_k]: keys that do not exist; None if all sequences have max_k keys."""


class Layout:
    """Which packed rows attend to which: sequence i's queries are rows cu_seqlens_q[i]..cu_seqlens_q[i+1]."""

    def __init__(self, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_q: int, max_k: int) -> None:
        self.cu_seqlens_q, self.cu_seqlens_k = cu_seqlens_q, cu_seqlens_k
        self.max_q, self.max_k = max_q, max_k
        self._padded: dict[int, tuple[list[_Bucket], _Padding, _Padding]] = {}

    @cached_property
    def host(self) -> tuple[np.ndarray, np.ndarray]:
        """Both offsets as numpy arrays. On a GPU this waits for the device; only `torch` and `eager` need it."""
        return self.cu_seqlens_q.cpu().numpy().astype(np.int64), self.cu_seqlens_k.cpu().numpy().astype(np.int64)

    def padded(self, num_heads: int) -> tuple[list[_Bucket], _Padding, _Padding]:
        """Buckets of sequences of similar length, and the paddings of queries and keys that go with them."""
        if num_heads not in self._padded:
            device = self.cu_seqlens_q.device
            (start_q, num_q), (start_k, num_k) = ((cu[:-1], np.diff(cu)) for cu in self.host)
            groups = _group(num_q, num_k, _BUCKET_COST.get(device.type, 2**18))
            buckets = []
            for group in groups:
                max_k = int(num_k[group].max())
                holes = np.arange(max_k) >= num_k[group][:, None]
                mask = torch.from_numpy(holes[:, None, None, :]).to(device) if holes.any() else None
                buckets.append(_Bucket(len(group), int(num_q[group].max()), max_k, mask))
            queries = _padding(start_q, num_q, groups, num_heads, device)
            keys = _padding(start_k, num_k, groups, num_heads, device)
            self._padded[num_heads] = buckets, queries, keys
        return self._padded[num_heads]


def _group(num_q: np.ndarray, num_k: np.ndarray, bucket_cost: int) -> list[np.ndarray]:
    """Splits sequences, ordered by length, into buckets: a new one whenever the padding so far has cost a bucket."""
    level = np.floor(np.log2(num_q + 8) * 2)  # so that cross-attention groups keys among queries of similar length
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


# --- backends ------------------------------------------------------------------------------------------------------


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    layout: Layout,
    *,
    causal: bool,
    dropout_p: float,
    seed: int,
    backend: str,
) -> Tensor:
    """softmax(q k^T + bias) v inside each sequence, without a scale (T5 has none); output [Tq, heads, D].

    q [Tq, heads, D], k and v [Tk, heads, D]; bias [heads, 2R + 1] by distance (key minus query, clamped to -R..R), or
    None. Queries without keys give zeros. dropout_p: dropout of the probabilities, its mask a function of the seed
    (flash_attn draws from torch's global generator instead). But for the mask, backends differ by rounding only.
    """
    return BACKENDS[backend].run(q, k, v, bias, layout, causal=causal, dropout_p=dropout_p, seed=seed)


def _distance_bias(bias: Tensor | None, num_q: int, num_k: int, causal: bool, device: torch.device) -> Tensor | None:
    """The bias as a matrix [heads or 1, num_q, num_k], -inf where causality forbids; None if it is zero everywhere."""
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


def _generator(seed: int, dropout_p: float, device: torch.device) -> torch.Generator | None:
    return torch.Generator(device).manual_seed(seed) if dropout_p > 0 else None


def _torch(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """Padded batches of similar lengths. Plain products: SDPA has no gradient of a bias but in its unfused path, which
    was slower."""
    num_heads, dim = q.shape[1:]
    generator = _generator(seed, dropout_p, q.device)
    buckets, queries, keys = layout.padded(num_heads)
    rows_q = [b.size * num_heads * b.max_q for b in buckets]
    rows_k = [b.size * num_heads * b.max_k for b in buckets]
    parts = zip(
        buckets, queries.pad(q).split(rows_q), keys.pad(k).split(rows_k), keys.pad(v).split(rows_k), strict=True
    )
    outputs = []
    for bucket, bq, bk, bv in parts:
        batch = bucket.size * num_heads
        scores = bq.view(batch, bucket.max_q, dim) @ bk.view(batch, bucket.max_k, dim).transpose(1, 2)
        scores = scores.view(bucket.size, num_heads, bucket.max_q, bucket.max_k)
        matrix = _distance_bias(bias, bucket.max_q, bucket.max_k, causal, q.device)
        if matrix is not None:
            scores = scores + matrix
        if bucket.key_holes is not None and not causal:  # causal: holes lie after every query that is read
            scores = scores.masked_fill(bucket.key_holes, torch.finfo(scores.dtype).min)
        probabilities = dropout(scores.softmax(-1, dtype=torch.float32).to(v.dtype), dropout_p, generator)
        out = probabilities.view(batch, bucket.max_q, bucket.max_k) @ bv.view(batch, bucket.max_k, dim)
        outputs.append(out.view(-1, dim))
    return queries.unpad(torch.cat(outputs), num_heads) if outputs else torch.zeros_like(q)


def _eager(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """The reference: one sequence at a time, the formula as it stands, in fp32."""
    generator = _generator(seed, dropout_p, q.device)
    cu_q, cu_k = (cu.tolist() for cu in layout.host)
    outputs = [q.new_zeros(0, *q.shape[1:])]
    for q0, q1, k0, k1 in zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:], strict=True):
        sq, sk, sv = (x.float().transpose(0, 1) for x in (q[q0:q1], k[k0:k1], v[k0:k1]))
        scores = sq @ sk.transpose(1, 2)
        distance = torch.arange(k1 - k0, device=q.device) - torch.arange(q1 - q0, device=q.device)[:, None]
        if bias is not None:
            reach = bias.shape[1] // 2
            scores = scores + bias[:, distance.clamp(-reach, reach) + reach]
        if causal:
            scores = scores.masked_fill(distance > 0, -math.inf)
        outputs.append((dropout(scores.softmax(-1), dropout_p, generator) @ sv).transpose(0, 1).to(q.dtype))
    return torch.cat(outputs)


def _flash_attn(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """FlashAttention-2's varlen kernel."""
    reason = _flash_attn_refusal("encoder_self" if bias is not None else "cross", q.device, q.dtype)
    if reason is not None:
        raise UserError(f"flash_attn cannot serve this attention: {reason}")
    from flash_attn import flash_attn_varlen_func

    out: Tensor = flash_attn_varlen_func(
        q,
        k,
        v,
        layout.cu_seqlens_q,
        layout.cu_seqlens_k,
        layout.max_q,
        layout.max_k,
        dropout_p=dropout_p,
        softmax_scale=1.0,
        causal=causal,
    )
    return out


def _flash_attn_refusal(kind: str, device: torch.device, dtype: torch.dtype) -> str | None:
    if kind != "cross":
        return "it has no relative-position bias"
    if device.type != "cuda":
        return f"it needs CUDA, the device is {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"it needs fp16 or bf16, not {str(dtype).removeprefix('torch.')}"
    if importlib.util.find_spec("flash_attn") is None:
        return "it is not installed (pip install flash-attn)"
    return None


def _never(kind: str, device: torch.device, dtype: torch.dtype) -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """run: the computation, with the arguments of `attention`. refusal(kind, device, dtype): why it cannot serve, or
    None if it can."""

    run: Callable[..., Tensor]
    refusal: Callable[[str, torch.device, torch.dtype], str | None]


BACKENDS: dict[str, Backend] = {
    "flash_attn": Backend(_flash_attn, _flash_attn_refusal),
    "torch": Backend(_torch, _never),
    "eager": Backend(_eager, _never),
}
"""In the order of `auto`'s preference."""


def choose_backends(requested: str, device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """The backend of each kind of attention: the one asked for, or with "auto" the first that can serve.

    Raises UserError if the one asked for is unknown or cannot serve a kind.
    """
    if requested == "auto":
        return {kind: next(n for n, b in BACKENDS.items() if b.refusal(kind, device, dtype) is None) for kind in KINDS}
    if requested not in BACKENDS:
        unknown("attention backend", requested, ["auto", *BACKENDS], "model.attention")
    for kind in KINDS:
        reason = BACKENDS[requested].refusal(kind, device, dtype)
        if reason is not None:
            what = f"{requested} cannot serve {kind} attention: {reason}"
            raise UserError(what, "model.attention", "'auto' uses each backend where it can serve")
    return dict.fromkeys(KINDS, requested)


def describe(backends: dict[str, str], device: torch.device, dtype: torch.dtype) -> str:
    """One line: the backend of each kind, and why the ones that `auto` prefers to it were passed over."""
    parts = []
    for kind, chosen in backends.items():
        refusals = {name: backend.refusal(kind, device, dtype) for name, backend in BACKENDS.items()}
        before = list(BACKENDS)[: list(BACKENDS).index(chosen)]
        reasons = "; ".join(f"{name}: {refusals[name] or 'not asked for'}" for name in before)
        parts.append(f"{kind}={chosen}" + (f" ({reasons})" if reasons else ""))
    return "attention: " + ", ".join(parts)
