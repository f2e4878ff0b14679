from unittest import mock

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

from bigchem.model import functional
from bigchem.model.functional import IGNORED, Objective, linear_cross_entropy, rms_norm


def test_rms_norm_and_its_gradients_equal_torch() -> None:
    x = torch.randn(7, 12, dtype=torch.float32, requires_grad=True)
    weight = torch.randn(12, requires_grad=True)
    upstream = torch.randn(7, 12)
    ours = torch.autograd.grad((rms_norm(x, weight, 1e-6) * upstream).sum(), (x, weight))
    theirs = torch.autograd.grad((F.rms_norm(x, (12,), weight, 1e-6) * upstream).sum(), (x, weight))
    torch.testing.assert_close(rms_norm(x, weight, 1e-6), F.rms_norm(x, (12,), weight, 1e-6))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_rms_norm_computes_in_fp32() -> None:
    x = torch.full((1, 4), 300.0, dtype=torch.float16)  # 300^2 overflows fp16
    assert torch.equal(rms_norm(x, torch.ones(4, dtype=torch.float16), 1e-6), torch.ones(1, 4, dtype=torch.float16))


def losses_and_grads(chunk: int, monkeypatch: pytest.MonkeyPatch, labels: torch.Tensor) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 6, generator=generator).requires_grad_()
    weight = (torch.randn(13, 6, generator=generator) * 20).requires_grad_()  # probabilities that underflow
    monkeypatch.setitem(functional._LOGITS_PER_CHUNK, "cpu", chunk * len(weight))
    total, losses = linear_cross_entropy(hidden, weight, labels)
    return [total, losses, *torch.autograd.grad(total * 3, (hidden, weight))]


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_linear_cross_entropy_equals_torch(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = torch.tensor([0, 12, IGNORED, 3, 4, 5, IGNORED, 7, 8, 9, 1])
    total, losses, *grads = losses_and_grads(chunk, monkeypatch, labels)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(11, 6, generator=generator).requires_grad_()
    weight = (torch.randn(13, 6, generator=generator) * 20).requires_grad_()
    expected = F.cross_entropy(hidden @ weight.t(), labels, reduction="none")
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(total, expected.sum())
    torch.testing.assert_close(
        grads, list(torch.autograd.grad(expected.sum() * 3, (hidden, weight))), atol=1e-4, rtol=1e-5
    )
    assert not losses.requires_grad


def test_linear_cross_entropy_with_nothing_to_learn_is_zero_with_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    total, _, grad_hidden, grad_weight = losses_and_grads(4, monkeypatch, torch.full((11,), IGNORED))
    assert total == 0
    assert grad_hidden.abs().max() == 0
    assert grad_weight.abs().max() == 0


def test_linear_cross_entropy_keeps_no_gradients_under_no_grad() -> None:
    weight = torch.nn.Parameter(torch.randn(5, 4))
    with torch.no_grad():
        total, _ = linear_cross_entropy(torch.randn(3, 4), weight, torch.tensor([0, 1, 2]))
    assert total.grad_fn is None


def labelled(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens, width, vocabulary = draw(st.integers(1, 9)), draw(st.integers(1, 6)), draw(st.integers(2, 11))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.1, 1.0, 10.0]))
    hidden = torch.randn(tokens, width, generator=generator) * scale
    weight = torch.randn(vocabulary, width, generator=generator)
    labels = draw(st.lists(st.sampled_from([IGNORED, *range(vocabulary)]), min_size=tokens, max_size=tokens))
    return hidden, weight, torch.tensor(labels)


@given(
    st.composite(labelled)(), st.sampled_from([0.0, 1e-4, 0.3]), st.sampled_from([0.0, 0.1, 0.9]), st.integers(1, 10)
)
def test_the_objective_and_its_gradient_are_the_plain_formulas(
    inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor], z_loss: float, smoothing: float, chunk: int
) -> None:
    """Against float64 autograd of torch's label smoothing and log(Z)^2."""
    hidden, weight, labels = inputs
    hidden64, weight64 = (x.double().requires_grad_() for x in (hidden, weight))
    logits = hidden64 @ weight64.t()
    expected = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum", label_smoothing=smoothing)
    expected = expected + z_loss * (logits.logsumexp(-1).square() * (labels != IGNORED)).sum()
    plain = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    with mock.patch.dict(functional._LOGITS_PER_CHUNK, cpu=chunk * len(weight)):
        total, losses = linear_cross_entropy(
            hidden.requires_grad_(), weight.requires_grad_(), labels, Objective(z_loss, smoothing)
        )
    grads = torch.autograd.grad(total * 3, (hidden, weight))
    wanted = torch.autograd.grad(expected * 3, (hidden64, weight64))
    torch.testing.assert_close(losses.double(), plain.detach(), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(total.double(), expected.detach(), atol=2e-4, rtol=1e-5)
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad.double(), want, atol=1e-5 * max(1.0, want.abs().max().item()), rtol=1e-5)


def test_in_bf16_the_scale_of_the_loss_is_not_rounded() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, 16, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(40, 16, generator=generator).bfloat16().requires_grad_()
    total, _ = linear_cross_entropy(hidden, weight, torch.randint(0, 40, (64,), generator=generator))
    whole = torch.autograd.grad(total, (hidden, weight), retain_graph=True)
    scale = 1.3  # in bf16 1.2969
    for grad, unscaled in zip(torch.autograd.grad(total * scale, (hidden, weight)), whole, strict=True):
        ratio = (grad.double() / unscaled.double())[unscaled != 0].mean().item()
        assert ratio == pytest.approx(scale, abs=1e-3)


def test_in_bf16_the_gradient_of_the_weight_is_rounded_once() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(64, 16, generator=generator).bfloat16()
    weight = torch.randn(40, 16, generator=generator).bfloat16().requires_grad_()
    labels = torch.randint(0, 40, (64,), generator=generator)
    total, _ = linear_cross_entropy(hidden, weight, labels)
    exact, *_ = total.grad_fn.saved_tensors[1:]
    assert torch.equal(torch.autograd.grad(total * (1 / 3), weight)[0], (exact * torch.tensor(1 / 3)).bfloat16())
    assert exact.dtype == torch.float32
