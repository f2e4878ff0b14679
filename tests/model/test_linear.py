"""Products of packed rows and weights, and their gradients, equal torch's own up to rounding on every path."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bigchem.model import linear as products
from bigchem.model.linear import linear, matmul_t

SIZES = st.integers(1, 70)
both_libraries = pytest.mark.parametrize(
    "onednn",
    [False, pytest.param(True, marks=pytest.mark.skipif(not products.BUILT_WITH_ONEDNN, reason="torch lacks oneDNN"))],
)
"""What MKL multiplies, and what oneDNN does, whichever this processor would use."""


@both_libraries
@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 70), inner=SIZES, outer=SIZES)
def test_values_and_gradients_are_those_of_torchs_linear(onednn: bool, rows: int, inner: int, outer: int) -> None:
    torch.manual_seed(rows)
    x, weight = torch.randn(rows, inner, requires_grad=True), torch.randn(outer, inner, requires_grad=True)
    grad = torch.randn(rows, outer)
    with mock.patch.multiple(products, USES_ONEDNN=onednn, WIDE=32):
        got, want = linear(x, weight), F.linear(x.double(), weight.double())
        ours = torch.autograd.grad(got, [x, weight], grad)
    torch.testing.assert_close(got.double(), want, atol=1e-4, rtol=1e-5)
    theirs = torch.autograd.grad(want, [x, weight], grad.double())
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_torchs_own_bit_for_bit(dtype: torch.dtype) -> None:
    x, weight = torch.randn(9, 16, dtype=dtype), torch.randn(5, 16, dtype=dtype)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_both_sides_may_be_transposed_views() -> None:
    a, b = torch.randn(16, 9), torch.randn(16, 5)
    torch.testing.assert_close(matmul_t(a.t(), b.t()), a.t() @ b)


@both_libraries
@pytest.mark.parametrize("width", [8, 300])
def test_what_needs_no_gradient_is_not_computed(width: int, onednn: bool) -> None:
    x, weight = torch.randn(6, width), torch.randn(width, width, requires_grad=True)

    def of_linear(x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size) -> int:
        return 2 * x.numel() * weight[0]

    def of_weight(grad: torch.Size, x: torch.Size, *_: object, out_shape: object) -> int:
        return 2 * grad.numel() * x[1]

    ops = {
        torch.ops.mkldnn._linear_pointwise: of_linear,
        torch.ops.aten.mkldnn_linear_backward_weights: of_weight,
    }
    with (
        mock.patch.object(products, "USES_ONEDNN", onednn),
        FlopCounterMode(display=False, custom_mapping=ops) as counter,
    ):
        linear(x, weight).sum().backward()
    assert counter.get_total_flops() == 2 * (2 * 6 * width * width)  # forward, and the weight's gradient
    assert weight.grad is not None


def test_compiled_code_gives_the_same() -> None:
    weight = torch.randn(4, 8)
    compiled = torch.compile(lambda x: linear(x, weight), backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 8)
    torch.testing.assert_close(compiled(x), linear(x, weight))
