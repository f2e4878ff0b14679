"""Matrix products of packed rows and weights. With AVX-512, on processors other than Intel's, most use oneDNN: torch's
own use MKL, which can run at half speed there."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _is_intel() -> bool:
    """Whether the processor is Intel's, as Linux says in the second line of its list."""
    listed = Path("/proc/cpuinfo")
    if not listed.exists():
        return False
    with listed.open(encoding="utf-8") as lines:
        return "GenuineIntel" in next(lines) + next(lines, "")


BUILT_WITH_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
USES_ONEDNN = BUILT_WITH_ONEDNN and torch.backends.cpu.get_cpu_capability() == "AVX512" and not _is_intel()
"""With AVX2 alone MKL is as fast, and copies no operand: 0.7 of the time of a weight's gradient. On an Intel Xeon with
AVX-512 MKL takes 0.9 of oneDNN's time, and a step with 16 M parameters 0.8."""
WIDE = 256
"""Sides of a weight from which on its gradient gains from oneDNN, which copies the gradient's operands."""


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x weight^T: [T, in] and [out, in] to [T, out]."""
    if _served(x, weight):
        product: Tensor = _OneDNN.apply(x, weight)
        return product
    return F.linear(x, weight)


def matmul_t(a: Tensor, b: Tensor) -> Tensor:
    """a b^T without a gradient: [m, k] and [n, k] to [m, n]. Either may be a transposed view."""
    if not _served(a, b):
        return a @ b.t()
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return product


def _served(a: Tensor, b: Tensor) -> bool:
    """Compiled code uses torch's product: Inductor does not support oneDNN's op on trainable weights."""
    fp32_on_cpu = a.device.type == "cpu" and a.dtype == b.dtype == torch.float32
    return USES_ONEDNN and fp32_on_cpu and a.numel() > 0 and b.numel() > 0 and not torch.compiler.is_compiling()


class _OneDNN(torch.autograd.Function):
    """The op that torch.compile uses. On one core of an AMD EPYC, 2,048 x 384 by 1,536 x 384, it measured 270 GFLOP/s
    forward and for the input's gradient, 228 for the weight's; `@` measured 118 for each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return matmul_t(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        (grad,), (need_x, need_weight) = grads, ctx.needs_input_grad
        return matmul_t(grad, weight.t()) if need_x else None, _grad_weight(grad, x, weight) if need_weight else None


def _grad_weight(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """grad^T x."""
    if min(weight.shape) < WIDE:
        return grad.t() @ x
    # The forward pass's op would transpose both operands: 1.4 times the time for 384 x 1,536 over 1,800 rows.
    product: Tensor
    product, _ = torch.ops.aten.mkldnn_linear_backward_weights(grad.to_mkldnn(), x.to_mkldnn(), weight, False)
    return product
