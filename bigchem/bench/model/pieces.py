"""T5's operations between matrix products, forward and backward: torch's, compiled, ours, Liger's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bigchem.bench.common import Figure
from bigchem.model import functional
from bigchem.model.functional import Drop

Call = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """tokens, d_model, d_ff, vocab_size: of one micro-batch."""

    tokens: int
    d_model: int
    d_ff: int
    vocab_size: int


def pieces(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, str, Callable[[], Call]]]:
    """(piece, who, function that prepares a call). Preparing may fail if something is missing or cannot be compiled."""

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=dtype).requires_grad_()

    def prepare(work: Callable[..., tuple[Tensor, ...]], shapes: list[tuple[int, ...]]) -> Call:
        leaves = [leaf(*shape) for shape in shapes]
        grads = [torch.randn_like(out) for out in work(*leaves)]
        return lambda: torch.autograd.grad(work(*leaves), leaves, grads)

    def prepare_loss(make: Callable[[Tensor], Callable[..., Tensor]], labels: Tensor) -> Call:
        loss, leaves = make(labels), (leaf(*hidden), leaf(sizes.vocab_size, sizes.d_model))
        return lambda: torch.autograd.grad(loss(*leaves), leaves)

    wide, hidden = (sizes.tokens, sizes.d_ff), (sizes.tokens, sizes.d_model)
    streams, norm = [hidden, hidden, hidden[1:]], "residual, dropout, norm"
    elementwise: list[tuple[str, str, Callable[..., tuple[Tensor, ...]], list[tuple[int, ...]]]] = [
        (norm, "ours", add_norm, streams),
        (norm, "torch's", torch_add_norm, streams),
        (norm, "transformers'", plain_add_norm, streams),
        ("gated GELU, dropout", "ours", gated_gelu, [wide, wide]),
        ("gated GELU, dropout", "torch's", torch_gated_gelu, [wide, wide]),
        ("ReLU, dropout", "ours", relu, [wide]),
        ("ReLU, dropout", "torch's", torch_relu, [wide]),
    ]
    for piece, who, work, shapes in elementwise:
        yield piece, who, partial(prepare, work, shapes)
        yield piece, f"{who}, compiled", partial(prepare, torch.compile(work, dynamic=True), shapes)
    labels = torch.randint(0, sizes.vocab_size, (sizes.tokens,), device=device)
    for who, loss in {"ours, chunked": chunked, "torch's, all logits": plain_cross_entropy, "Liger's": liger}.items():
        yield "cross-entropy", who, partial(prepare_loss, loss, labels)


def errors(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Iterator[Figure]:
    """Our operations against themselves in float64, which torch computes, with the same dropout: the largest error of
    results and gradients."""
    wide, hidden = (sizes.tokens, sizes.d_ff), (sizes.tokens, sizes.d_model)
    labels = torch.arange(sizes.tokens, device=device) % sizes.vocab_size
    losses: Callable[..., tuple[Tensor, ...]] = lambda h, w: (chunked(labels)(h, w),)  # noqa: E731
    ours: list[tuple[str, Callable[..., tuple[Tensor, ...]], list[tuple[int, ...]]]] = [
        ("residual, dropout, norm", add_norm, [hidden, hidden, hidden[1:]]),
        ("gated GELU, dropout", gated_gelu, [wide, wide]),
        ("ReLU, dropout", relu, [wide]),
        ("cross-entropy", losses, [hidden, (sizes.vocab_size, sizes.d_model)]),
    ]
    for piece, work, shapes in ours:
        random = torch.Generator().manual_seed(0)
        leaves = [torch.randn(*shape, generator=random).to(device, dtype).requires_grad_() for shape in shapes]
        exact = [x.detach().double().requires_grad_() for x in leaves]
        got, want = work(*leaves), work(*exact)
        grads = [torch.randn(x.shape, generator=random).to(device, dtype) for x in got]
        gots = [*got, *torch.autograd.grad(got, leaves, [g.to(x.dtype) for g, x in zip(grads, got, strict=True)])]
        wants = [*want, *torch.autograd.grad(want, exact, [g.to(x.dtype) for g, x in zip(grads, want, strict=True)])]
        pairs = [(a.detach().double(), b.detach().double()) for a, b in zip(gots, wants, strict=True)]
        worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        name = f"{piece}, {str(dtype).removeprefix('torch.')}: largest error"
        yield Figure(name, worst, "relative", 1e-5 if dtype == torch.float32 else 0.02)


def drop_of(x: Tensor) -> Drop:
    return Drop(torch.arange(len(x), dtype=torch.int32, device=x.device), 0.1)


def add_norm(x: Tensor, update: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    return functional.add_norm(x, update, weight, 1e-6, drop_of(x), 1, None)


def torch_add_norm(x: Tensor, update: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    x = x + F.dropout(update, 0.1)
    return x, F.rms_norm(x, weight.shape, weight, 1e-6)


def plain_add_norm(x: Tensor, update: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """transformers' T5LayerNorm."""
    x = x + F.dropout(update, 0.1)
    variance = x.float().square().mean(-1, keepdim=True)
    return x, weight * (x * torch.rsqrt(variance + 1e-6)).to(weight.dtype)


def gated_gelu(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return (functional.activate(a, b, "gelu_new", drop_of(a), 1),)


def torch_gated_gelu(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return (F.dropout(F.gelu(a, approximate="tanh") * b, 0.1),)


def relu(a: Tensor) -> tuple[Tensor, ...]:
    return (functional.activate(a, None, "relu", drop_of(a), 1),)


def torch_relu(a: Tensor) -> tuple[Tensor, ...]:
    return (F.dropout(F.relu(a), 0.1),)


def chunked(labels: Tensor) -> Callable[..., Tensor]:
    return lambda hidden, weight: functional.linear_cross_entropy(hidden, weight, labels)[0]


def plain_cross_entropy(labels: Tensor) -> Callable[..., Tensor]:
    return lambda hidden, weight: F.cross_entropy((hidden @ weight.t()).float(), labels, reduction="sum")


def liger(labels: Tensor) -> Callable[..., Tensor]:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(reduction="sum")

    def call(hidden: Tensor, weight: Tensor) -> Tensor:
        total: Tensor = loss(weight, hidden, labels)
        return total

    return call
