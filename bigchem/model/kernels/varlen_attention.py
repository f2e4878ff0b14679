"""The kernels as one differentiable operation of torch: bigchem::varlen_attention.

It is a custom operation with a fake kernel, so torch.compile keeps it in one graph with what is around it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from triton import knobs

from bigchem.errors import UserError
from bigchem.model.kernels import backward as kernels_backward
from bigchem.model.kernels import bias_gradient, tiles
from bigchem.model.kernels.forward import forward as kernel_forward
from bigchem.model.kernels.tiles import MAX_HEAD_DIM, Tiles
from bigchem.model.kernels.work import plan_work
from bigchem.model.layout import Layout


def triton_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """`bigchem.model.attention.attention` by the kernels. Every row must belong to a sequence."""
    if q.shape[2] > MAX_HEAD_DIM:
        raise UserError(f"the triton backend serves heads of at most {MAX_HEAD_DIM} dimensions, not {q.shape[2]}")
    work = layout.work or planned(layout, len(q), len(k), q.shape[2], q.dtype, q.device)
    cu, longest = (layout.cu_seqlens_q, layout.cu_seqlens_k), (layout.max_q, layout.max_k)
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    out: Tensor = varlen_attention(q, k, v, bias, *cu, work, *longest, causal, float(dropout_p), seed)[0]
    return out


def planned(
    layout: Layout, num_q: int, num_k: int, head_dim: int, dtype: torch.dtype, device: torch.device
) -> list[Tensor]:
    """The kernels' work on a layout of so many packed rows; see `Work`."""
    chosen = _tiles(layout.max_q, layout.max_k, head_dim, dtype, device)
    return list(plan_work(layout.cu_seqlens_q, layout.cu_seqlens_k, num_q, num_k, chosen))


def _tiles(max_q: int, max_k: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> Tiles:
    arch = _architecture(device.index) if device.type == "cuda" else max(tiles.ARCHITECTURES)
    return tiles.all_tiles(max(max_q, max_k), head_dim, arch, fp32=dtype == torch.float32)


@cache
def _architecture(index: int | None) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor


# --- the operations --------------------------------------------------------------------------------------------------


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
    out = torch.empty_like(q)
    lse = torch.empty(q.shape[1], q.shape[0], dtype=torch.float32, device=q.device)
    tile = _tiles(max_q, max_k, q.shape[2], q.dtype, q.device).forward
    items = work[0]
    if len(items) and q.numel():
        with _device(q):
            kernel_forward[(len(items), q.shape[1])](
                q, k, v, _or_any(bias, lse), out, lse, cu_seqlens_q, cu_seqlens_k, items,
                *_numbers(q, dropout_p, seed), tile.block_m, tile.block_n, *_meta(q, bias),
                CAUSAL=causal, HAS_BIAS=bias is not None, DROPOUT=dropout_p > 0, PRECISION=_precision(),
                num_warps=tile.num_warps, num_stages=tile.num_stages,
            )  # fmt: skip
    return out, lse


@varlen_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *_rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


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
    """Gradients of q, k, v and, where there is one, of the bias (fp32)."""
    grads = [torch.empty_like(x) for x in (q, k, v)]
    chosen = _tiles(max_q, max_k, q.shape[2], q.dtype, q.device)
    numbers, meta = _numbers(q, dropout_p, seed), _meta(q, bias)
    flags = {"CAUSAL": causal, "HAS_BIAS": bias is not None, "DROPOUT": dropout_p > 0, "PRECISION": _precision()}
    cu = cu_seqlens_q, cu_seqlens_k
    any_bias = _or_any(bias, lse)
    grad_bias = torch.zeros_like(bias) if bias is not None else None
    num_heads = q.shape[1]
    with _device(q):
        short, items = chosen.grad_short, work[3]
        if len(items):
            partial = _partial(len(items), num_heads, 2 * short.block_m + 2, lse) if bias is not None else lse
            kernels_backward.grad_short[(len(items), num_heads)](
                q, k, v, any_bias, out, grad_out, lse, *grads, partial, *cu, items,
                *numbers, short.sequences, short.block_m, *meta, **flags,
                num_warps=short.num_warps, num_stages=short.num_stages,
            )  # fmt: skip
            if grad_bias is not None:
                grad_bias += _gather(partial, bias_gradient.short_places(meta[2], short.block_m))
        if max(max_q, max_k) > short.block_m:
            tile, items = chosen.grad_queries, work[1]
            shape = (meta[2], tile.block_m, tile.block_n, causal)
            size = bias_gradient.partial_size(*shape)
            partial = _partial(len(items), num_heads, size, lse) if bias is not None else lse
            delta = torch.empty_like(lse)
            kernels_backward.grad_queries[(len(items), num_heads)](
                q, k, v, any_bias, out, grad_out, lse, delta, grads[0], partial, *cu, items,
                *numbers, tile.block_m, tile.block_n, *meta, *bias_gradient.slots(*shape), size, **flags,
                num_warps=tile.num_warps, num_stages=tile.num_stages,
            )  # fmt: skip
            if grad_bias is not None:
                grad_bias += _gather(partial, bias_gradient.places(*shape))
            tile, items = chosen.grad_keys, work[2]
            kernels_backward.grad_keys[(len(items), num_heads)](
                q, k, v, any_bias, grad_out, lse, delta, grads[1], grads[2], *cu, items,
                *numbers, tile.block_m, tile.block_n, *meta, **flags,
                num_warps=tile.num_warps, num_stages=tile.num_stages,
            )  # fmt: skip
    return grads if grad_bias is None else [*grads, grad_bias]


@varlen_attention_backward.register_fake
def _(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *_rest: Any) -> list[Tensor]:
    return [torch.empty_like(x) for x in (q, k, v, bias) if x is not None]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bias, cu_seqlens_q, cu_seqlens_k, work, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, bias, *output, cu_seqlens_q, cu_seqlens_k, *work)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_out: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, w0, w1, w2, w3 = ctx.saved_tensors
    grads = varlen_attention_backward(grad_out.contiguous(), *tensors, [w0, w1, w2, w3], *ctx.options)
    return (*grads, *([None] * (4 - len(grads))), None, None, [None] * 4, None, None, None, None, None)


varlen_attention.register_autograd(_backward, setup_context=_setup_context)


# --- arguments -------------------------------------------------------------------------------------------------------


def _numbers(q: Tensor, dropout_p: float, seed: int) -> tuple[int, int, float, int, int]:
    """seed and threshold (of uint32, as int32), keep_scale, num_heads, num_rows."""
    threshold = min(round(dropout_p * 2**32), 2**32 - 1)
    keep_scale = 1 / (1 - dropout_p) if dropout_p < 1 else 0.0
    return _int32(mixed_seed(seed)), _int32(threshold), keep_scale, q.shape[1], q.shape[0]


def mixed_seed(seed: int) -> int:
    """A uint32 for a seed: neighbouring seeds, as of neighbouring layers, give unrelated masks."""
    x = (seed ^ (seed >> 32)) & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def _int32(x: int) -> int:
    return x - 2**32 if x >= 2**31 else x


def _meta(q: Tensor, bias: Tensor | None) -> tuple[int, int, int]:
    """D, D_PAD, REACH."""
    return q.shape[2], tiles.padded_head_dim(q.shape[2]), bias.shape[1] // 2 if bias is not None else 1


def _precision() -> str:
    return "interpreter" if knobs.runtime.interpret else "ieee"


def _or_any(bias: Tensor | None, other: Tensor) -> Tensor:
    """A pointer for the kernel, which does not read it where there is no bias."""
    return other if bias is None else bias


def _partial(items: int, num_heads: int, size: int, like: Tensor) -> Tensor:
    return torch.empty(items, num_heads, size, dtype=torch.float32, device=like.device)


def _gather(partial: Tensor, places: Any) -> Tensor:
    """The gradient of the bias [H, 2R + 1] from every program's partial."""
    sums = torch.nn.functional.pad(partial.sum(0), (0, 1))
    index = torch.from_numpy(places).to(sums.device)
    return sums[:, index].sum(1)


def _device(q: Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(q.device) if q.is_cuda else nullcontext()
