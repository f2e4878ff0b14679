"""A feed-forward's hidden state, activation(a) * b or activation(a), with dropout: one kernel each way."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from bigchem.model.kernels.fused.activation_kernels import backward, forward, relu_backward
from bigchem.model.kernels.fused.launch import cdiv, elementwise, numbers, on_device


def activate(
    a: Tensor, b: Tensor | None, activation: str, hashes: Tensor, dropout_p: float = 0.0, seed: int | None = None
) -> Tensor:
    """dropout(activation(a) * b) [T, d_ff], computed in fp32; without b (not gated) dropout(activation(a)).

    activation: relu, gelu_new (GELU's tanh approximation) or silu. hashes: of the tokens, int32 [T]; seed: from
    `dropout.place_seed`, or None: nothing is dropped.
    """
    out: Tensor = _Activate.apply(a, b, activation, hashes, dropout_p, seed)
    return out


class _Activate(torch.autograd.Function):
    """Saves a and b alone, which are the products' results; for ReLU only its result, which the next product saves."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor | None, activation: str, hashes: Tensor, dropout_p: float, seed: int | None
    ) -> Tensor:
        a, b = a.contiguous(), b if b is None else b.contiguous()
        (num_rows, width), out, p = a.shape, torch.empty_like(a), 0.0 if seed is None else dropout_p
        ctx.tile, ctx.drop = _tile(width), (seed or 0, *numbers(p))
        ctx.grid = (cdiv(num_rows, ctx.tile["ROWS"]), cdiv(width, ctx.tile["BLOCK"]))
        ctx.options = {"ACTIVATION": activation, "DROPOUT": p > 0}
        with on_device(a):
            forward[ctx.grid](a, b, hashes, out, num_rows, *ctx.drop, **ctx.tile, **ctx.options)
        ctx.by_result = activation == "relu" and b is None
        ctx.save_for_backward(*((out,) if ctx.by_result else (a, b, hashes)))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, grad_b = grads[0].contiguous(), None
        grad_a = torch.empty_like(grad)
        with on_device(grad):
            if ctx.by_result:
                (out,) = ctx.saved_tensors
                relu_backward[ctx.grid](out, grad, grad_a, len(out), ctx.drop[2], **ctx.tile)
            else:
                a, b, hashes = ctx.saved_tensors
                grad_b = b if b is None else torch.empty_like(b)
                backward[ctx.grid](a, b, hashes, grad, grad_a, grad_b, len(a), *ctx.drop, **ctx.tile, **ctx.options)
        return grad_a, grad_b, None, None, None, None


@cache
def _tile(width: int) -> dict[str, int]:
    size = elementwise(width)
    return {"WIDTH": width, "BLOCK": size.block, "ROWS": size.rows, "num_warps": size.num_warps}
