import pytest
import torch
import torch.nn.functional as F

from bigchem.model import functional
from bigchem.model.functional import IGNORED, dropout, linear_cross_entropy, rms_norm


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


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    x = torch.ones(40_001, requires_grad=True)
    y = dropout(x, p, torch.Generator().manual_seed(0))
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.01)
    if p < 1:
        assert y.mean().item() == pytest.approx(1.0, abs=0.02)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_is_independent_between_neighbours() -> None:
    kept = dropout(torch.ones(400_000), 0.1, torch.Generator().manual_seed(1)) > 0
    for lag in (1, 2, 3, 4):  # four masks come from one 64-bit draw
        both = (~kept[:-lag] & ~kept[lag:]).float().mean().item()
        assert both == pytest.approx(0.01, abs=0.001), lag


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
