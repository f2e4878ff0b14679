"""x + dropout(update) and its RMS norm, with dropout of the result where a stack ends: one kernel each way."""

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from bigchem.model.kernels.fused.add_norm_kernels import add_dropped, backward, forward, sum_partials
from bigchem.model.kernels.fused.launch import Size, cdiv, elementwise, numbers, on_device, whole_rows

PROGRAMS = 256
"""At most, in the backward pass: each keeps a part of the weight's gradient."""
SUMS = Size(64, 32, 4)
"""The tile that adds these parts."""


def add_norm(
    x: Tensor | None,
    update: Tensor | None,
    weight: Tensor,
    eps: float,
    hashes: Tensor,
    dropout_p: float = 0.0,
    update_seed: int | None = None,
    normed_seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    """(sum, normed) [T, d]: x + dropout(update), and dropout(rms_norm(sum) * weight), computed in fp32.

    Without x the sum is dropout(update); without update it is x. hashes: of the tokens, int32 [T]; a seed, from
    `dropout.place_seed`, for each dropout; None: nothing is dropped there. Both results have the dtype of x + update.
    """
    total, normed = _AddNorm.apply(x, update, weight, eps, hashes, dropout_p, update_seed, normed_seed)
    return total, normed


class _AddNorm(torch.autograd.Function):
    """Saves the sum alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor | None,
        update: Tensor | None,
        weight: Tensor,
        eps: float,
        hashes: Tensor,
        dropout_p: float,
        update_seed: int | None,
        normed_seed: int | None,
    ) -> tuple[Tensor, Tensor]:
        x, update = _contiguous(x), _contiguous(update)
        total = cast(Tensor, x)
        if update is not None:
            total = torch.empty_like(update, dtype=None if x is None else torch.result_type(x, update))
        num_rows, width = total.shape
        normed, rstd = torch.empty_like(total), total.new_empty(num_rows, dtype=torch.float32)
        seeds = None if update is None else update_seed, normed_seed
        drops = [dropout_p > 0 and seed is not None for seed in seeds]
        dropout = (update_seed or 0, normed_seed or 0, *numbers(dropout_p))
        meta = _meta(width, 4, *drops)
        with on_device(total):
            forward[(cdiv(num_rows, meta["ROWS"]),)](
                x, update, weight, hashes, total, normed, rstd, num_rows, eps, *dropout, **meta
            )
        ctx.save_for_backward(total, weight, hashes, rstd)
        ctx.dropout, ctx.drops, ctx.has_x, ctx.has_update = dropout, drops, x is not None, update is not None
        ctx.set_materialize_grads(False)
        return total, normed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        total, weight, hashes, rstd = ctx.saved_tensors
        grad_sum, grad_normed = _contiguous(grads[0]), _contiguous(grads[1])
        if grad_normed is None:
            grad_normed = torch.zeros_like(total)
        own = ctx.drops[0]  # else the update's gradient is the sum's
        grad_x = torch.empty_like(total) if ctx.has_x or not own else None
        grad_update = torch.empty_like(total) if own else grad_x
        (num_rows, width), meta = total.shape, _meta(total.shape[1], 8, *ctx.drops)
        each = meta["ROWS"] * cdiv(num_rows, meta["ROWS"] * PROGRAMS)
        programs = cdiv(num_rows, each) if num_rows else 0
        partial, grad_weight = total.new_empty(programs, width, dtype=torch.float32), torch.empty_like(weight)
        with on_device(total):
            backward[(programs,)](
                total, weight, hashes, rstd, grad_sum, grad_normed, grad_x, grad_update if own else None, partial,
                num_rows, each, *ctx.dropout, **meta,
            )  # fmt: skip
            sum_partials[(cdiv(width, SUMS.block),)](
                partial, grad_weight, programs, WIDTH=width, BLOCK=SUMS.block, ROWS=SUMS.rows, num_warps=SUMS.num_warps
            )
        own_grads = grad_x if ctx.has_x else None, grad_update if ctx.has_update else None, grad_weight
        return (*own_grads, None, None, None, None, None)


def _contiguous(x: Tensor | None) -> Tensor | None:
    return x if x is None else x.contiguous()


@cache
def _meta(width: int, num_warps: int, drop_update: bool, drop_normed: bool) -> dict[str, Any]:
    """What the kernels are compiled for."""
    size = whole_rows(width, num_warps)
    tile = {"WIDTH": width, "BLOCK": size.block, "ROWS": size.rows, "num_warps": size.num_warps}
    return {**tile, "DROP_UPDATE": drop_update, "DROP_NORMED": drop_normed}


def add(x: Tensor | None, update: Tensor, hashes: Tensor, dropout_p: float, seed: int) -> Tensor:
    """The sum of `add_norm`."""
    total: Tensor = _Add.apply(x, update, hashes, dropout_p, seed)
    return total


class _Add(torch.autograd.Function):
    """Saves nothing: the gradient of the update is dropped as the update was."""

    @staticmethod
    def forward(ctx: Any, x: Tensor | None, update: Tensor, hashes: Tensor, dropout_p: float, seed: int) -> Tensor:
        ctx.has_x, ctx.drop = x is not None, (hashes, dropout_p, seed)
        return _added(x, update, *ctx.drop)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0] if ctx.has_x else None, _added(None, grads[0], *ctx.drop), None, None, None


def _added(x: Tensor | None, update: Tensor, hashes: Tensor, dropout_p: float, seed: int) -> Tensor:
    x, update = x if x is None else x.contiguous(), update.contiguous()
    total = torch.empty_like(update, dtype=update.dtype if x is None else torch.result_type(x, update))
    size, (num_rows, width) = elementwise(update.shape[1]), update.shape
    with on_device(update):
        add_dropped[(cdiv(num_rows, size.rows), cdiv(width, size.block))](
            x, update, hashes, total, num_rows, seed, *numbers(dropout_p),
            WIDTH=width, BLOCK=size.block, ROWS=size.rows, num_warps=size.num_warps,
        )  # fmt: skip
    return total
