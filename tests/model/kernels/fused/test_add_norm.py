"""Norm with residual and dropout under Triton's interpreter, against float64."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from fused_reference import dropout_factors, relative_error, token_hashes

from bigchem.model.kernels.fused import add_norm as module
from bigchem.model.kernels.fused.add_norm import add_norm

pytestmark = pytest.mark.heavy
EPS = 1e-6


def reference(x, update, weight, hashes, p, update_seed, normed_seed) -> tuple[Tensor, Tensor]:
    total = 0.0 if x is None else x.double()
    if update is not None:
        total = total + update.double() * dropout_factors(hashes, update_seed, update.shape[1], p)
    normed = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + EPS) * weight.double()
    return total, normed * dropout_factors(hashes, normed_seed, total.shape[1], p)


def errors(
    tokens=9, width=24, *, has_x=True, has_update=True, p=0.0, seeds=(None, None), dtype=torch.float32
) -> list[float]:
    """Largest error of both results and each gradient, relative to the largest element in float64."""
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).to(dtype).requires_grad_()

    x = draw(tokens, width) if has_x else None
    update = draw(tokens, width) if has_update else None
    weight, upstream = draw(width), [torch.randn(tokens, width, generator=generator).to(dtype) for _ in range(2)]
    hashes = token_hashes(tokens)
    inputs = [y for y in (x, update, weight) if y is not None]
    found = add_norm(x, update, weight, EPS, hashes, p, *seeds)
    assert [y.dtype for y in found] == [dtype, dtype]
    got = [*found, *torch.autograd.grad(found, inputs, upstream)]
    expected = reference(x, update, weight, hashes, p, *seeds)
    want = [*expected, *torch.autograd.grad(expected, inputs, [y.double() for y in upstream])]
    return [relative_error(a, b) for a, b in zip(got, want, strict=True)]


@pytest.mark.parametrize("seeds", [(None, None), (5, None), (5, -7)], ids=["none", "update", "update and result"])
@pytest.mark.parametrize(("has_x", "has_update"), [(True, True), (False, True), (True, False)])
def test_results_and_gradients_equal_float64(has_x: bool, has_update: bool, seeds: tuple) -> None:
    assert max(errors(has_x=has_x, has_update=has_update, p=0.3, seeds=seeds)) < 2e-6


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)], ids=["fp16", "bf16"])
def test_half_precision(dtype: torch.dtype, allowed: float) -> None:
    assert max(errors(dtype=dtype, p=0.1, seeds=(3, 4))) < allowed


def test_widths_that_fill_the_tile_and_rows_of_several_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRAMS", 3)
    assert max(errors(20, 1024, p=0.1, seeds=(1, 2))) < 2e-6
    assert max(errors(1, 2100, p=0.1, seeds=(1, 2))) < 2e-6


def test_no_tokens() -> None:
    x = torch.zeros(0, 8, requires_grad=True)
    weight = torch.ones(8, requires_grad=True)
    total, normed = add_norm(x, x, weight, EPS, torch.zeros(0, dtype=torch.int32))
    (total.sum() + normed.sum()).backward()
    assert not weight.grad.any()


def test_only_one_of_the_results_is_used() -> None:
    x, update = (torch.randn(5, 8, requires_grad=True) for _ in range(2))
    weight, hashes = torch.randn(8, requires_grad=True), torch.arange(5, dtype=torch.int32)
    for i in range(2):
        found = torch.autograd.grad(add_norm(x, update, weight, EPS, hashes)[i].square().sum(), (x, update, weight))
        expected = reference(x, update, weight, hashes, 0.0, None, None)[i].square().sum()
        wanted = torch.autograd.grad(expected, (x, update, weight), materialize_grads=True)
        torch.testing.assert_close(found, wanted, check_dtype=False)


def test_everything_may_be_dropped() -> None:
    x, update = torch.randn(5, 8), torch.randn(5, 8, requires_grad=True)
    total, _ = add_norm(x, update, torch.ones(8), EPS, torch.arange(5, dtype=torch.int32), 1.0, 3)
    assert torch.equal(total, x)


def test_inputs_need_not_be_contiguous_and_the_weight_may_have_another_dtype() -> None:
    x, update = torch.randn(8, 5).t(), torch.randn(5, 16)[:, ::2]
    weight, hashes = torch.randn(8).bfloat16(), torch.arange(5, dtype=torch.int32)
    found = add_norm(x, update, weight, EPS, hashes)
    torch.testing.assert_close(found, reference(x, update, weight, hashes, 0.0, None, None), check_dtype=False)


def test_the_gradients_are_the_same_to_the_bit_each_time() -> None:
    x, weight = torch.randn(50, 40), torch.randn(40, requires_grad=True)
    hashes = torch.arange(50, dtype=torch.int32)
    both = [torch.autograd.grad(add_norm(x, x, weight, EPS, hashes, 0.1, 1)[1].sum(), weight)[0] for _ in range(2)]
    assert torch.equal(*both)
