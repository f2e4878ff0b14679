"""A feed-forward's hidden state, activation(a) * b or activation(a), with dropout: one kernel each way."""

from typing import Any

import torch
import triton
from torch import Tensor

from bigchem.model.kernels.fused.activation_kernels import backward, forward
from bigchem.model.kernels.fused.launch import elementwise, numbers, on_device


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
    """Saves a and b alone, which are the products' results."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor | None, activation: str, hashes: Tensor, dropout_p: float, seed: int | None
    ) -> Tensor:
        a, b = a.contiguous(), b if b is None else b.contiguous()
        out, (threshold, scale), size = torch.empty_like(a), numbers(dropout_p), elementwise(a.shape[1])
        ctx.save_for_backward(a, b, hashes)
        ctx.grid = (triton.cdiv(len(a), size.rows), triton.cdiv(a.shape[1], size.block))
        ctx.options = {
            "seed": seed or 0, "threshold": threshold, "scale": scale, "WIDTH": a.shape[1], "BLOCK": size.block,
            "ROWS": size.rows, "ACTIVATION": activation, "DROPOUT": dropout_p > 0 and seed is not None,
            "num_warps": size.num_warps,
        }  # fmt: skip
        with on_device(a):
            forward[ctx.grid](a, b, hashes, out, len(a), **ctx.options)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, b, hashes = ctx.saved_tensors
        grad_a, grad_b = torch.empty_like(a), b if b is None else torch.empty_like(b)
        with on_device(a):
            backward[ctx.grid](a, b, hashes, grads[0].contiguous(), grad_a, grad_b, len(a), **ctx.options)
        return grad_a, grad_b, None, None, None, None
