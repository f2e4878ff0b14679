"""Cross-entropy under Triton's interpreter, against float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton")

from bigchem.model import functional
from bigchem.model.functional import IGNORED, Objective, linear_cross_entropy
from bigchem.model.kernels.fused import cross_entropy as module
from bigchem.model.kernels.fused.cross_entropy import cross_entropy_

pytestmark = pytest.mark.heavy
LABELS = torch.tensor([0, 12, IGNORED, 3, IGNORED])


def computed(logits: Tensor, z_loss: float, smoothing: float, *, extra: bool = True, gradient: bool = True):
    """(losses, objective, gradient or None)"""
    logits = logits.clone()
    losses, objective = (torch.full((len(logits),), torch.nan) for _ in range(2))
    cross_entropy_(
        logits,
        LABELS,
        losses,
        objective if extra else None,
        z_loss=z_loss,
        smoothing=smoothing,
        ignored=IGNORED,
        gradient=gradient,
    )
    return losses, objective, logits


def expected(logits: Tensor, z_loss: float, smoothing: float) -> tuple[Tensor, Tensor, Tensor]:
    x = logits.double().requires_grad_()
    options = {"ignore_index": IGNORED, "reduction": "none"}
    objective = F.cross_entropy(x, LABELS, label_smoothing=smoothing, **options)
    objective = objective + z_loss * x.logsumexp(-1).square() * (LABELS != IGNORED)
    grad = torch.autograd.grad(objective.sum(), x)[0]
    return F.cross_entropy(x.detach(), LABELS, **options), objective.detach(), grad


@pytest.fixture
def logits() -> Tensor:
    return 8 * torch.randn(len(LABELS), 77, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("z_loss", "smoothing"), [(0.0, 0.0), (1e-4, 0.0), (0.0, 0.1), (0.3, 0.2)])
@pytest.mark.parametrize("block", [16, 128], ids=["several blocks", "one block"])
def test_losses_objective_and_gradient_equal_float64(
    logits: Tensor, z_loss: float, smoothing: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    for found, want in zip(computed(logits, z_loss, smoothing), expected(logits, z_loss, smoothing), strict=True):
        assert (found - want).abs().max() < 3e-6 * want.abs().max()


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)], ids=["fp16", "bf16"])
def test_half_precision_rounds_only_the_gradient(logits: Tensor, dtype: torch.dtype, allowed: float) -> None:
    logits = logits.to(dtype)
    *sums, grad = computed(logits, 1e-4, 0.1)
    *wanted, want = expected(logits, 1e-4, 0.1)
    for found, value in zip(sums, wanted, strict=True):
        assert (found - value).abs().max() < 3e-6 * value.abs().max()
    assert grad.dtype == dtype
    assert (grad.double() - want).abs().max() < allowed * want.abs().max()


def test_without_an_objective_the_gradient_is_that_of_the_losses(logits: Tensor) -> None:
    losses, untouched, grad = computed(logits, 0.0, 0.0, extra=False)
    want, _, want_grad = expected(logits, 0.0, 0.0)
    torch.testing.assert_close((losses, grad), (want, want_grad), check_dtype=False)
    assert untouched.isnan().all()


def test_logits_stay_as_they_are_where_no_gradient_is_wanted(logits: Tensor) -> None:
    losses, _, after = computed(logits, 0.0, 0.0, gradient=False)
    assert torch.equal(after, logits)
    torch.testing.assert_close(losses, expected(logits, 0.0, 0.0)[0], check_dtype=False)


def test_probabilities_that_underflow(logits: Tensor) -> None:
    logits = logits * 100
    for found, want in zip(computed(logits, 1e-4, 0.1), expected(logits, 1e-4, 0.1), strict=True):
        assert (found - want).abs().max() < 3e-6 * want.abs().max()


def test_a_logit_that_is_not_a_number_is_seen_in_the_loss(logits: Tensor) -> None:
    logits[0, 40] = torch.nan
    losses, *_ = computed(logits, 0.0, 0.0)
    assert losses[0].isnan()
    assert losses[1:].isfinite().all()


@pytest.mark.parametrize("objective", [functional.PLAIN, Objective(1e-2, 0.1)], ids=["plain", "z-loss and smoothing"])
def test_over_chunks_it_is_the_loss_that_torch_computes(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 6, generator=generator).requires_grad_() for n in (len(LABELS), 40))

    def computed() -> list[Tensor]:
        total, losses = linear_cross_entropy(hidden, weight, LABELS, objective)
        return [total, losses, *torch.autograd.grad(total * 3, (hidden, weight))]

    expected = computed()
    monkeypatch.setattr(functional, "KERNEL_DEVICES", {"cpu"})
    monkeypatch.setitem(functional._LOGITS_PER_CHUNK, "kernels", 2 * len(weight))
    torch.testing.assert_close(computed(), expected, atol=2e-5, rtol=1e-5)
