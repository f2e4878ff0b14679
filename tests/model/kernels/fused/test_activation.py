"""The feed-forward's hidden state under Triton's interpreter, against float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton")

from fused_reference import dropout_factors, relative_error, token_hashes

from bigchem.model.kernels.fused.activation import activate

pytestmark = pytest.mark.heavy
TORCHS = {"relu": F.relu, "silu": F.silu, "gelu_new": lambda a: F.gelu(a, approximate="tanh")}


def reference(a: Tensor, b: Tensor | None, activation: str, hashes: Tensor, p: float, seed: int) -> Tensor:
    out = TORCHS[activation](a.double()) * (1 if b is None else b.double())
    return out * dropout_factors(hashes, seed, a.shape[1], p)


def errors(activation: str, gated: bool, tokens=11, width=40, p=0.3, dtype=torch.float32) -> list[float]:
    """Largest error of the result and each gradient, relative to the largest element in float64."""
    generator = torch.Generator().manual_seed(0)
    size = (tokens, width)
    inputs = [(3 * torch.randn(size, generator=generator)).to(dtype).requires_grad_() for _ in range(1 + gated)]
    a, b = inputs[0], inputs[1] if gated else None
    hashes = token_hashes(tokens)
    upstream = torch.randn(size, generator=generator).to(dtype)
    found = activate(a, b, activation, hashes, p, -9)
    assert found.dtype == dtype
    got = [found, *torch.autograd.grad(found, inputs, upstream)]
    expected = reference(a, b, activation, hashes, p, -9)
    want = [expected, *torch.autograd.grad(expected, inputs, upstream.double())]
    return [relative_error(x, y) for x, y in zip(got, want, strict=True)]


@pytest.mark.parametrize(("activation", "gated"), [("relu", False), ("gelu_new", True), ("silu", True)])
def test_results_and_gradients_equal_float64(activation: str, gated: bool) -> None:
    assert max(errors(activation, gated)) < 2e-6
    assert max(errors(activation, gated, p=0.0)) < 2e-6


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)], ids=["fp16", "bf16"])
def test_half_precision(dtype: torch.dtype, allowed: float) -> None:
    assert max(errors("gelu_new", True, dtype=dtype)) < allowed


def test_several_tiles() -> None:
    assert max(errors("gelu_new", True, 17, 1100)) < 2e-6


def test_large_inputs_overflow_nowhere() -> None:
    a = torch.tensor([[-300.0, -30.0, 0.0, 30.0, 300.0, 3e4]], requires_grad=True)
    for activation, torchs in TORCHS.items():
        out = activate(a, None, activation, torch.zeros(1, dtype=torch.int32))
        torch.testing.assert_close(out, torchs(a))
        slope = torch.autograd.grad(out.sum(), a)[0]
        torch.testing.assert_close(slope, torch.autograd.grad(torchs(a).sum(), a)[0])


def test_without_a_seed_nothing_is_dropped() -> None:
    a = torch.rand(4, 8)
    assert torch.equal(activate(a, None, "relu", torch.zeros(4, dtype=torch.int32), 0.5), a)
