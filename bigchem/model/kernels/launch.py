"""Launches the attention kernels: the forward and the backward pass of one call, without autograd."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from triton import cdiv, knobs

from bigchem.model import dropout
from bigchem.model.kernels import backward, bias_gradient, tiles
from bigchem.model.kernels.device import LOG2E
from bigchem.model.kernels.forward import forward
from bigchem.model.kernels.tiles import Tiles


class Inputs(NamedTuple):
    """What all kernels of a call read, contiguous.

    q [Tq, H, D], k and v [Tk, H, D]; table fp32 [H, 2 * (R + MARGIN) + 1] or None without a bias; hashes int32 [Tq] and
    columns int32 [>= longest key sequence, padded to a tile] of dropout, None without; cu_seqlens int32.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    table: Tensor | None
    hashes: Tensor | None
    columns: Tensor | None
    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor


class Results(NamedTuple):
    """out [Tq, H, D]; lse fp32 [H, Tq]: log2 of the softmax's denominators; factors int32 [H, Tq]: dropout's of rows,
    empty without."""

    out: Tensor
    lse: Tensor
    factors: Tensor


class Options(NamedTuple):
    """max_q, max_k: the longest sequences; seed: int32, of the place in the model."""

    max_q: int
    max_k: int
    causal: bool
    dropout_p: float
    seed: int


def bias_table(bias: Tensor, causal: bool) -> Tensor:
    """log2(e) * the bias by distance, fp32 [H, 2 * (R + MARGIN) + 1], from the bias [H, 2R + 1]; -inf for distances of
    keys that causal attention does not see."""
    padded = torch.nn.functional.pad(
        bias.detach().float(), (bias_gradient.MARGIN, bias_gradient.MARGIN), mode="replicate"
    ).mul_(LOG2E.value)
    if causal:
        padded[:, padded.shape[1] // 2 + 1 :] = -math.inf
    return padded


def tiles_for(max_q: int, max_k: int, head_dim: int, dtype: torch.dtype, device: torch.device) -> Tiles:
    """The tiles of a call. Without a GPU those of the latest architecture."""
    arch = _architecture(device.index) if device.type == "cuda" else max(tiles.ARCHITECTURES)
    return tiles.all_tiles(max(max_q, max_k), head_dim, arch, fp32=dtype == torch.float32)


@cache
def _architecture(index: int | None) -> int:
    major, minor = torch.cuda.get_device_capability(index)
    return 10 * major + minor


class _Call:
    """The arguments that all kernels of a call share."""

    def __init__(self, x: Inputs, options: Options) -> None:
        self.x, self.options = x, options
        num_rows, self.num_heads, head_dim = x.q.shape
        self.tiles = tiles_for(options.max_q, options.max_k, head_dim, x.q.dtype, x.q.device)
        drops = options.dropout_p > 0
        keep_scale = 1 / (1 - options.dropout_p) if options.dropout_p < 1 else 0.0
        self.numbers = (dropout.threshold(options.dropout_p), keep_scale, self.num_heads, num_rows)
        self.reach = 1 if x.table is None else x.table.shape[1] // 2 - bias_gradient.MARGIN
        width = 0 if x.table is None else x.table.shape[1]
        self.meta = (head_dim, tiles.padded_head_dim(head_dim), self.reach, width)
        self.flags: dict[str, Any] = {"CAUSAL": options.causal, "HAS_BIAS": x.table is not None, "DROPOUT": drops}
        self.flags["PRECISION"] = "interpreter" if knobs.runtime.interpret else "ieee"
        # Pointers that a kernel does not read still need a tensor of their type.
        self.table = x.q.new_empty(0, dtype=torch.float32) if x.table is None else x.table
        self.hashes, self.columns = (x.cu_seqlens_q if y is None else y for y in (x.hashes, x.columns))

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.x.q.device)


def run_forward(x: Inputs, items: Tensor, options: Options) -> Results:
    """The forward pass. items: `Work.forward`."""
    call = _Call(x, options)
    out, lse = torch.empty_like(x.q), call.empty(call.num_heads, len(x.q))
    factors = call.empty(*(lse.shape if call.flags["DROPOUT"] else (0,)), dtype=torch.int32)
    tile = call.tiles.forward
    if len(items):
        with _device(x.q):
            forward[(len(items), call.num_heads)](
                x.q, x.k, x.v, call.table, call.hashes, call.columns, out, lse, factors,
                x.cu_seqlens_q, x.cu_seqlens_k, items, options.seed, *call.numbers,
                tile.block_m, tile.block_n, *call.meta, **call.flags,
                num_warps=tile.num_warps, num_stages=tile.num_stages,
            )  # fmt: skip
    return Results(out, lse, factors)


def run_backward(
    grad_out: Tensor, x: Inputs, results: Results, work: Sequence[Tensor], options: Options
) -> list[Tensor]:
    """Gradients of q, k, v and, with a table, of the bias (fp32 [H, 2R + 1]). work: a `Work`."""
    call = _Call(x, options)
    grads = [torch.empty_like(y) for y in (x.q, x.k, x.v)]
    _, query_items, key_items, bias_items, short_items = work
    near = far = call.empty(0, call.num_heads, 2)
    with _device(x.q):
        short = _short(call, grad_out, results, grads, short_items)
        if max(options.max_q, options.max_k) > call.tiles.grad_short.block_m:
            delta, far = _long(call, grad_out, results, grads, query_items, key_items)
            if x.table is not None:
                near = _bias(call, grad_out, results, delta, bias_items, far=False)
        return grads if x.table is None else [*grads, _sum(call, short, near, far, near_has_far=False)]


def run_grad_bias(grad_out: Tensor, x: Inputs, out: Tensor, lse: Tensor, items: Tensor, options: Options) -> Tensor:
    """The gradient of the bias alone, over the items' tiles, without dropout. lse: natural logarithms."""
    call = _Call(x, options)
    delta = (out.float() * grad_out.float()).sum(-1).t().contiguous()
    results = Results(out, lse * LOG2E.value, call.hashes)
    none = call.empty(0, call.num_heads, 2)
    with _device(x.q):
        near = _bias(call, grad_out, results, delta, items, far=True)
        return _sum(call, none, near, none, near_has_far=True)


def _short(call: _Call, grad_out: Tensor, results: Results, grads: list[Tensor], items: Tensor) -> Tensor:
    """Writes the gradients of the short sequences' rows; returns the partial sums of their bias gradients, if any."""
    x, tile = call.x, call.tiles.grad_short
    partial = call.empty(len(items) if x.table is not None else 0, call.num_heads, 2 * tile.block_m + 2)
    backward.grad_short[(len(items), call.num_heads)](
        x.q, x.k, x.v, call.table, results.factors, call.columns, results.out, grad_out, results.lse, *grads, partial,
        x.cu_seqlens_q, x.cu_seqlens_k, items, *call.numbers, tile.sequences, tile.block_m, *call.meta, **call.flags,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return partial


def _long(
    call: _Call,
    grad_out: Tensor,
    results: Results,
    grads: list[Tensor],
    query_items: Tensor,
    key_items: Tensor,
) -> tuple[Tensor, Tensor]:
    """Writes the gradients of the long sequences' rows; returns delta [H, Tq] and the sums of far tiles, if any."""
    x, tile, near = call.x, call.tiles.grad_queries, call.tiles.grad_bias
    first, count = bias_gradient.slots(call.reach, near.block_m, near.block_n, call.options.causal)
    out, lse, factors = results
    delta, cu = torch.empty_like(lse), (x.cu_seqlens_q, x.cu_seqlens_k)
    far = call.empty(len(query_items) if x.table is not None else 0, call.num_heads, 2)
    backward.grad_queries[(len(query_items), call.num_heads)](
        x.q, x.k, x.v, call.table, factors, call.columns, out, grad_out, lse, delta, grads[0], far, *cu, query_items,
        *call.numbers, tile.block_m, tile.block_n, *call.meta,
        first * near.block_n, (first + count) * near.block_n, **call.flags,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    tile = call.tiles.grad_keys
    backward.grad_keys[(len(key_items), call.num_heads)](
        x.q, x.k, x.v, call.table, factors, call.columns, grad_out, lse, delta, grads[1], grads[2], *cu, key_items,
        *call.numbers, tile.block_m, tile.block_n, *call.meta, **call.flags,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return delta, far


def _bias(call: _Call, grad_out: Tensor, results: Results, delta: Tensor, items: Tensor, *, far: bool) -> Tensor:
    """Partial sums of the bias gradients of the items' tiles: of those near the diagonal, or of all."""
    x, tile = call.x, call.tiles.grad_bias
    shape = (call.reach, tile.block_m, tile.block_n, call.options.causal)
    first, count = bias_gradient.slots(*shape)
    size = bias_gradient.partial_size(*shape, far)
    partial = call.empty(len(items), call.num_heads, size)
    flags = {name: value for name, value in call.flags.items() if name in ("DROPOUT", "PRECISION")}
    programs = count + far * (1 if call.options.causal else 2)  # no key comes after a causal query's slots
    backward.grad_bias[(len(items), call.num_heads, programs)](
        x.q, x.k, x.v, call.table, results.factors, call.columns, grad_out, results.lse, delta, partial,
        x.cu_seqlens_q, x.cu_seqlens_k, items, *call.numbers,
        tile.sequences, tile.block_m, tile.block_n, *call.meta, first, count, size, **flags,
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip
    return partial


def _sum(call: _Call, short: Tensor, near: Tensor, far: Tensor, *, near_has_far: bool) -> Tensor:
    """The bias gradient [H, 2R + 1] from all partial sums [n, H, size]."""
    tile, short_block = call.tiles.grad_bias, call.tiles.grad_short.block_m
    shape = (call.reach, tile.block_m, tile.block_n, call.options.causal, near_has_far)
    short_places = _on_device(bias_gradient.short_places, (call.reach, short_block, call.options.causal), short.device)
    near_places = _on_device(bias_gradient.places, shape, short.device)
    total, columns = call.empty(call.num_heads, 2 * call.reach + 1), 64
    backward.sum_partials[(call.num_heads, cdiv(total.shape[1], columns))](
        short, short_places, near, near_places, far, total,
        len(short), len(near), len(far), call.num_heads, total.shape[1],
        short.shape[2], near.shape[2], len(near_places), 32, columns,
    )  # fmt: skip
    return total


@cache
def _on_device(places: Callable[..., np.ndarray], arguments: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.from_numpy(places(*arguments)).to(device)


def _device(q: Tensor) -> AbstractContextManager[Any]:
    return torch.cuda.device(q.device) if q.is_cuda else nullcontext()
