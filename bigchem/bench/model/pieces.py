"""T5's operations between matrix products, forward and backward: torch's, compiled, ours, Liger's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bigchem.model import functional
from bigchem.model.dropout import dropout

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

    def prepare(work: Callable[..., Tensor], shapes: list[tuple[int, ...]]) -> Call:
        leaves = [leaf(*shape) for shape in shapes]
        grad = torch.randn_like(leaves[0])
        return lambda: torch.autograd.grad(work(*leaves), leaves, grad)

    def prepare_loss(make: Callable[[Tensor], Callable[..., Tensor]], labels: Tensor) -> Call:
        loss, leaves = make(labels), (leaf(*hidden), leaf(sizes.vocab_size, sizes.d_model))
        return lambda: torch.autograd.grad(loss(*leaves), leaves)

    wide, hidden = (sizes.tokens, sizes.d_ff), (sizes.tokens, sizes.d_model)
    elementwise: list[tuple[str, str, Callable[..., Tensor], list[tuple[int, ...]]]] = [
        ("rms_norm", "ours", rms_norm, [hidden, hidden[1:]]),
        ("rms_norm", "torch's", torch_rms_norm, [hidden, hidden[1:]]),
        ("rms_norm", "transformers'", plain_rms_norm, [hidden, hidden[1:]]),
        ("gated GELU", "ours", gated_gelu, [wide, wide]),
        ("residual + dropout", "ours", residual, [hidden, hidden]),
        ("residual + dropout", "torch's", torch_residual, [hidden, hidden]),
    ]
    for piece, who, work, shapes in elementwise:
        yield piece, who, partial(prepare, work, shapes)
        yield piece, f"{who}, compiled", partial(prepare, torch.compile(work, dynamic=True), shapes)
    labels = torch.randint(0, sizes.vocab_size, (sizes.tokens,), device=device)
    for who, loss in {"ours, chunked": chunked, "torch's, all logits": plain_cross_entropy, "Liger's": liger}.items():
        yield "cross-entropy", who, partial(prepare_loss, loss, labels)


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return functional.rms_norm(x, weight, 1e-6)


def torch_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, 1e-6)


def plain_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """transformers' T5LayerNorm."""
    variance = x.float().square().mean(-1, keepdim=True)
    return weight * (x * torch.rsqrt(variance + 1e-6)).to(weight.dtype)


def gated_gelu(x: Tensor, y: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh") * y


def residual(x: Tensor, update: Tensor) -> Tensor:
    hashes = torch.arange(len(x), dtype=torch.int32, device=x.device)
    return x + dropout(update, hashes, 0, 0.1)


def torch_residual(x: Tensor, update: Tensor) -> Tensor:
    return x + F.dropout(update, 0.1)


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
