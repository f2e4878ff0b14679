"""The kernels as one differentiable torch operation, bigchem::varlen_attention.

It has a fake kernel, so torch.compile keeps it in one graph with its surroundings.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from triton import knobs

from bigchem.base.errors import UserError
from bigchem.model.kernels import backward as kernels_backward
from bigchem.model.kernels import bias_gradient, tiles
from bigchem.model.kernels.forward import forward as kernel_forward
from bigchem.model.kernels.tiles import MAX_HEAD_DIM, Tiles
from bigchem.model.kernels.work import plan_work
from bigchem.model.layout import Layout


def triton_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """`bigchem.model.attention.attention` by the kernels.

    cu_seqlens are not read back from the device, so they are not checked: they must be those of the layout's lengths,
    and every row must belong to a sequence. Otherwise the results are undefined.
    """
    if q.shape[2] > MAX_HEAD_DIM:
        raise UserError(f"the triton backend serves heads of at most {MAX_HEAD_DIM} dimensions, not {q.shape[2]}")
    if bias is not None and (bias.shape[0] != q.shape[1] or bias.shape[1] % 2 == 0 or bias.shape[1] < 3):
        raise UserError(f"a bias of shape {tuple(bias.shape)} for {q.shape[1]} heads; expected [heads, 2R + 1], R >= 1")
    # The work was planned for the weights' dtype; under autocast, queries may have another.
    work = list(layout.work)
    if layout.work_for != (q.shape[2], q.dtype):
        planned = plan_lengths(layout.lengths_q, layout.lengths_k, q.shape[2], q.dtype, q.device)
        work = [x.to(q.device) for x in planned]
    cu, longest = (layout.cu_seqlens_q, layout.cu_seqlens_k), (layout.max_q, layout.max_k)
    bias = None if bias is None else bias.float()
    out: Tensor = varlen_attention(q, k, v, bias, *cu, work, *longest, causal, float(dropout_p), seed)[0]
    return out


def plan_lengths(
    lengths_q: np.ndarray, lengths_k: np.ndarray, head_dim: int, dtype: torch.dtype, device: torch.device
) -> list[Tensor]:
    """The kernels' work on sequences of these lengths, for a device but on the host; see `Work`."""
    chosen = _tiles(int(lengths_q.max(initial=0)), int(lengths_k.max(initial=0)), head_dim, dtype, device)
    return [torch.from_numpy(items) for items in plan_work(lengths_q, lengths_k, chosen)]


def _tiles(max_q: int, max_k: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> Tiles:
    arch = _architecture(device.index) if device.type == "cuda" else max(tiles.ARCHITECTURES)
    return tiles.all_tiles(max(max_q, max_k), head_dim, arch, fp32=dtype == torch.float32)


@cache
def _architecture(index: int | None) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor


# --- the operations --------------------------------------------------------------------------------------------------


class _Launch(NamedTuple):
    """Arguments common to all kernels of a call. numbers: seed, threshold, keep_scale, num_heads, num_rows; meta: D,
    D_PAD, REACH; flags: by name."""

    tiles: Tiles
    numbers: tuple[int, int, float, int, int]
    meta: tuple[int, int, int]
    flags: dict[str, Any]

    @classmethod
    def of(
        cls, q: Tensor, bias: Tensor | None, max_q: int, max_k: int, causal: bool, dropout_p: float, seed: int
    ) -> _Launch:
        """For queries [Tq, H, D] and the operation's options."""
        num_rows, num_heads, head_dim = q.shape
        threshold = _threshold(dropout_p)
        keep_scale = 1 / (1 - threshold / 2**16) if threshold < 2**16 else 0.0
        precision = "interpreter" if knobs.runtime.interpret else "ieee"
        return cls(
            _tiles(max_q, max_k, head_dim, q.dtype, q.device),
            (_int32(mixed_seed(seed)), threshold, keep_scale, num_heads, num_rows),
            (head_dim, tiles.padded_head_dim(head_dim), bias.shape[1] // 2 if bias is not None else 1),
            {"CAUSAL": causal, "HAS_BIAS": bias is not None, "DROPOUT": threshold > 0, "PRECISION": precision},
        )


@torch.library.custom_op("bigchem::varlen_attention", mutates_args=())
def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    work: list[Tensor],
    max_q: int,
    max_k: int,
    causal: bool,
    dropout_p: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """(output [Tq, H, D], lse [H, Tq] fp32: log2 of the softmax's denominators). work: a `Work` as a list."""
    q, k, v, bias, cu_seqlens_q, cu_seqlens_k = _contiguous(q, k, v, bias, cu_seqlens_q, cu_seqlens_k)
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[1], q.shape[0], dtype=torch.float32, device=q.device)
    launch = _Launch.of(q, bias, max_q, max_k, causal, dropout_p, seed)
    tile, items = launch.tiles.forward, work[0]
    if len(items):
        with _device(q):
            kernel_forward[(len(items), q.shape[1])](
                q, k, v, _or_any(bias, lse), out, lse, cu_seqlens_q, cu_seqlens_k, items,
                *launch.numbers, tile.block_m, tile.block_n, *launch.meta, **launch.flags,
                num_warps=tile.num_warps, num_stages=tile.num_stages,
            )  # fmt: skip
    return out, lse


@varlen_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *_rest: Any) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@torch.library.custom_op("bigchem::varlen_attention_backward", mutates_args=())
def varlen_attention_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    out: Tensor,
    lse: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    work: list[Tensor],
    max_q: int,
    max_k: int,
    causal: bool,
    dropout_p: float,
    seed: int,
) -> list[Tensor]:
    """Gradients of q, k, v and, if given, the bias (fp32)."""
    grad_out, q, k, v, bias, cu_seqlens_q, cu_seqlens_k = _contiguous(
        grad_out, q, k, v, bias, cu_seqlens_q, cu_seqlens_k
    )
    launch = _Launch.of(q, bias, max_q, max_k, causal, dropout_p, seed)
    inputs = (q, k, v, _or_any(bias, lse), out, grad_out, lse)
    grads = [torch.empty_like(x) for x in (q, k, v)]
    cu = (cu_seqlens_q, cu_seqlens_k)
    parts: list[Tensor | None] = []
    with _device(q):
        if len(work[3]):
            parts.append(_grad_short(launch, inputs, grads, cu, work[3]))
        if max(max_q, max_k) > launch.tiles.grad_short.block_m:
            parts.append(_grad_long(launch, inputs, grads, cu, work[1], work[2]))
    if bias is None:
        return grads
    return [*grads, sum((part for part in parts if part is not None), torch.zeros_like(bias))]


def _grad_short(
    launch: _Launch, inputs: tuple[Tensor, ...], grads: list[Tensor], cu: tuple[Tensor, Tensor], items: Tensor
) -> Tensor | None:
    """Writes the gradients of the short sequences' rows; returns their part of the bias gradient."""
    tile = launch.tiles.grad_short
    partial = _partial(launch, len(items), 2 * tile.block_m + 2, items.device)
    kernels_backward.grad_short[(len(items), launch.numbers[3])](
        *inputs, *grads, partial, *cu, items,
        *launch.numbers, tile.sequences, tile.block_m, *launch.meta, **launch.flags,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return _gathered(partial, bias_gradient.short_places, launch.meta[2], tile.block_m)


def _grad_long(
    launch: _Launch,
    inputs: tuple[Tensor, ...],
    grads: list[Tensor],
    cu: tuple[Tensor, Tensor],
    query_items: Tensor,
    key_items: Tensor,
) -> Tensor | None:
    """_grad_short for the long sequences."""
    q, k, v, bias, out, grad_out, lse = inputs
    tile, num_heads = launch.tiles.grad_queries, launch.numbers[3]
    shape = (launch.meta[2], tile.block_m, tile.block_n, launch.flags["CAUSAL"])
    size = bias_gradient.partial_size(*shape)
    partial, delta = _partial(launch, len(query_items), size, q.device), torch.empty_like(lse)
    kernels_backward.grad_queries[(len(query_items), num_heads)](
        q, k, v, bias, out, grad_out, lse, delta, grads[0], partial, *cu, query_items,
        *launch.numbers, tile.block_m, tile.block_n, *launch.meta, *bias_gradient.slots(*shape), size, **launch.flags,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    tile = launch.tiles.grad_keys
    kernels_backward.grad_keys[(len(key_items), num_heads)](
        q, k, v, bias, grad_out, lse, delta, grads[1], grads[2], *cu, key_items,
        *launch.numbers, tile.block_m, tile.block_n, *launch.meta, **launch.flags,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return _gathered(partial, bias_gradient.places, *shape)


@varlen_attention_backward.register_fake
def _(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *_rest: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in (q, k, v, bias) if x is not None]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bias, cu_seqlens_q, cu_seqlens_k, work, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, bias, *output, cu_seqlens_q, cu_seqlens_k, *work)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, w0, w1, w2, w3 = ctx.saved_tensors
    grads = varlen_attention_backward(grad_out, *tensors, [w0, w1, w2, w3], *ctx.options)
    return (*grads, *([None] * (4 - len(grads))), None, None, [None] * 4, None, None, None, None, None)


varlen_attention.register_autograd(_backward, setup_context=_setup_context)


# --- arguments -------------------------------------------------------------------------------------------------------


def mixed_seed(seed: int) -> int:
    """Hashes a seed to uint32, so that neighbouring seeds (of neighbouring layers) give unrelated masks."""
    mixed: int = _mix((seed ^ (seed >> 32)) & 0xFFFFFFFF)
    return mixed


def _mix(x: Any) -> Any:
    """device.mix for an int or an int64 tensor."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def dropout_mask(
    seed: int, dropout_p: float, first_row: int, num_rows: int, num_heads: int, num_keys: int, device: torch.device
) -> Tensor:
    """bool [num_heads, num_rows, num_keys]: which scores of packed rows from first_row on the kernels keep."""
    row = torch.arange(first_row, first_row + num_rows, device=device).view(1, -1, 1)
    head = torch.arange(num_heads, device=device).view(-1, 1, 1)
    key = torch.arange(num_keys, device=device).view(1, 1, -1)
    hashes = _mix(_mix(row * num_heads + head) ^ mixed_seed(seed)) ^ (((key & ~8) * 0x9E3779B9) & 0xFFFFFFFF)
    halves = _mix(hashes)
    return torch.where((key & 8) != 0, halves >> 16, halves & 0xFFFF) >= _threshold(dropout_p)


def _threshold(dropout_p: float) -> int:
    """Elements whose sixteen random bits are below this are dropped."""
    return round(dropout_p * 2**16)


def _contiguous(*tensors: Any) -> list[Any]:
    """Contiguous tensors, as the kernels require."""
    return [x if x is None else x.contiguous() for x in tensors]


def _int32(x: int) -> int:
    return x - 2**32 if x >= 2**31 else x


def _or_any(bias: Tensor | None, other: Tensor) -> Tensor:
    """A valid pointer for the kernel, which does not read it without a bias."""
    return other if bias is None else bias


def _partial(launch: _Launch, items: int, size: int, device: torch.device) -> Tensor:
    """A buffer for each program's part of the bias gradient; empty without a bias."""
    items = items if launch.flags["HAS_BIAS"] else 0
    return torch.empty(items, launch.numbers[3], size, dtype=torch.float32, device=device)


def _gathered(partial: Tensor, places: Callable[..., np.ndarray], *arguments: int) -> Tensor | None:
    """The bias gradient [H, 2R + 1] from all programs' parts; None without any."""
    if not len(partial):
        return None
    sums = torch.nn.functional.pad(partial.sum(0), (0, 1))
    return sums[:, _on_device(places, arguments, partial.device)].sum(1)


@cache
def _on_device(places: Callable[..., np.ndarray], arguments: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.from_numpy(places(*arguments)).to(device)


def _device(q: Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(q.device) if q.is_cuda else nullcontext()
