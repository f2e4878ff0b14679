"""T5 between its matrix products: RMS norm, residuals, dropout, activations, and the loss over the vocabulary.

On CUDA these are the fused kernels of `kernels/fused`. In compiled code they are torch's operations, which the compiler
fuses. On a CPU they are torch's too, but for those that measured faster by hand.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bigchem.model import dropout
from bigchem.model.linear import matmul_t

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda a: F.relu(a) if a.is_leaf and a.requires_grad else F.relu_(a),  # autograd keeps leaves
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}
KERNEL_DEVICES = {"cuda"}
"""Types of devices that the fused kernels run on. Tests add the CPU, where they are interpreted."""

IGNORED = -100
"""Label of target tokens that are not learned."""


@dataclass(frozen=True)
class Drop:
    """Dropout of rows of tokens. hashes: of the tokens, int32 [T]; p: share to drop, 0: nothing."""

    hashes: Tensor
    p: float


def add_norm(
    x: Tensor | None, update: Tensor | None, weight: Tensor, eps: float, drop: Drop, seed: int, normed_seed: int | None
) -> tuple[Tensor, Tensor]:
    """(sum, its RMS norm) [T, d] of the sum x + dropout(update); the norm is dropped too if it has a seed.

    Without x the sum is dropout(update), without update x. seed, normed_seed: of their places (`dropout.place_seed`).
    """
    if _by_kernels(cast(Tensor, update if x is None else x)):
        from bigchem.model.kernels.fused import add_norm as fused

        return fused.add_norm(x, update, weight, eps, drop.hashes, drop.p, seed, normed_seed)
    total = add(x, update, drop, seed)
    normed = rms_norm(total, weight, eps)
    return total, normed if normed_seed is None else dropout.dropout(normed, drop.hashes, normed_seed, drop.p)


def add(x: Tensor | None, update: Tensor | None, drop: Drop, seed: int) -> Tensor:
    """The sum of `add_norm`."""
    if update is None:
        return cast(Tensor, x)
    if drop.p > 0 and _by_kernels(update):
        from bigchem.model.kernels.fused import add_norm as fused

        return fused.add(x, update, drop.hashes, drop.p, seed)
    update = dropout.dropout(update, drop.hashes, seed, drop.p)
    return update if x is None else x + update


def activate(a: Tensor, b: Tensor | None, activation: str, drop: Drop, seed: int) -> Tensor:
    """dropout(activation(a) * b) [T, d_ff], or without b (a feed-forward that is not gated) dropout(activation(a)).
    May overwrite a."""
    if _by_kernels(a):
        from bigchem.model.kernels.fused import activation as fused

        return fused.activate(a, b, activation, drop.hashes, drop.p, seed)
    hidden = ACTIVATIONS[activation](a)
    return dropout.dropout(hidden if b is None else hidden * b, drop.hashes, seed, drop.p)


def _by_kernels(x: Tensor) -> bool:
    """Whether the fused kernels compute this."""
    return x.device.type in KERNEL_DEVICES and not torch.compiler.is_compiling() and _has_kernels(x.device, x.dtype)


@cache
def _has_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    if dtype not in (torch.float32, torch.float16, torch.bfloat16) or importlib.util.find_spec("triton") is None:
        return False
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in at least fp32, in the dtype of x."""
    if x.device.type == "cpu" and x.dtype != torch.float64 and not torch.compiler.is_compiling():
        normed: Tensor = _RMSNorm.apply(x, weight, eps)
        return normed
    return F.rms_norm(x, weight.shape, weight, eps)


class _RMSNorm(torch.autograd.Function):
    """Few passes over memory, and few temporaries, which leave the cache: torch's CPU composite takes about ten passes
    forward. Sums over tokens and over columns are products with a vector."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x32 = x.float()
        norm = torch.linalg.vector_norm(x32, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        normed: Tensor = (x32 * scale).mul_(weight).to(x.dtype)
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        x32, scaled, weight32 = x.float(), grads[0].float() * scale, weight.float()
        product = scaled * x32
        grad_weight = scale.new_ones(len(x)) @ product
        mean = (product @ weight32).unsqueeze(-1).mul_(scale).mul_(scale).div_(x.shape[-1])
        grad_x = scaled.mul_(weight32).addcmul_(x32, mean, value=-1)
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None


_LOGITS_PER_CHUNK = {"cpu": 2**23, "cuda": 2**26, "kernels": 2**28}
"""Logits in memory at a time. CPU: measured best of 2^21..2^26; more exceed the cache, with fewer oneDNN repacks the
weights too often. In bf16 a logit takes 12 bytes by torch and 2 by the kernel; each chunk costs another pass over the
weight's gradient."""


@dataclass(frozen=True)
class Objective:
    """Terms that training minimises besides the cross-entropy; none if both are zero.

    z_loss: coefficient of log(Z)^2 per target token, Z the softmax's normaliser, which keeps logits near zero
    (PaLM, arXiv 2204.02311: 1e-4). label_smoothing: eps in (1 - eps) * cross-entropy + eps * (mean of -log p over the
    vocabulary), as torch.nn.functional.cross_entropy defines it.
    """

    z_loss: float = 0.0
    label_smoothing: float = 0.0


PLAIN = Objective()


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, objective: Objective = PLAIN
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `hidden @ weight.T` against labels, in fp32, without materialising all logits.

    hidden [T, d], weight [V, d], labels int64 [T] with IGNORED where nothing is learned. Returns the objective summed
    over tokens (differentiable) and each token's plain cross-entropy (fp32 [T], detached, zero where ignored).
    Gradients are computed in the forward pass, chunk by chunk, while the logits are in memory (as in Liger Kernel,
    arXiv 2410.10989).
    """
    want_grad = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    total, losses = _LinearCrossEntropy.apply(hidden, weight, labels, objective, want_grad)
    return total, losses


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, objective: Objective, want_grad: bool
    ) -> tuple[Tensor, Tensor]:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        minimised = losses if objective == PLAIN else torch.empty_like(losses)
        kernels = _by_kernels(hidden)
        chunk = max(1, _LOGITS_PER_CHUNK.get("kernels" if kernels else hidden.device.type, 2**26) // len(weight))
        grads_hidden, grad_weight = [], None
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = matmul_t(hidden[part], weight)
            results = losses[part], minimised[part]
            grad_logits = (_fused_chunk if kernels else _chunk)(logits, labels[part], *results, objective, want_grad)
            if grad_logits is not None:
                grads_hidden.append(matmul_t(grad_logits, weight.t()))
                product = matmul_t(hidden[part].t(), grad_logits.t()).t()
                grad_weight = product.float() if grad_weight is None else grad_weight.add_(product)
        if want_grad:
            grad_hidden = grads_hidden[0] if len(grads_hidden) == 1 else torch.cat([hidden[:0], *grads_hidden])
            if grad_weight is None:
                grad_weight = torch.zeros_like(weight, dtype=torch.float32)
            ctx.save_for_backward(grad_hidden, grad_weight)
            ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses)
        return minimised.sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        # In fp32: rounded to bf16, the scale would be off by up to 0.35 % in every gradient of the step, and by a
        # different amount at another world size.
        scale = grads[0].float().view(1, 1)
        scaled = torch.mul(grad_hidden, scale, out=torch.empty_like(grad_hidden))
        scaled_weight = torch.mul(grad_weight, scale, out=torch.empty_like(grad_weight, dtype=ctx.weight_dtype))
        return scaled, scaled_weight, None, None, None


def _fused_chunk(
    logits: Tensor, labels: Tensor, losses: Tensor, minimised: Tensor, objective: Objective, want_grad: bool
) -> Tensor | None:
    """`_chunk` by one kernel.

    Bytes that a logit moves in bf16: the product writes 2; the kernel reads 2 (and 2 more, which are in the cache) and
    writes 2; the two products of its gradient read 2 each. In all 12. `_chunk` moves 38: 2 + 4 for the products, 6 to
    convert to fp32, 8 for the softmax, 4 for the maximum, 8 for the ignored labels, 6 to convert back.
    """
    from bigchem.model.kernels.fused.cross_entropy import cross_entropy_

    own = None if objective == PLAIN else minimised
    terms = {"z_loss": float(objective.z_loss), "smoothing": float(objective.label_smoothing)}
    cross_entropy_(logits, labels, losses, own, **terms, ignored=IGNORED, gradient=want_grad)
    return logits if want_grad else None


def _chunk(
    logits: Tensor, labels: Tensor, losses: Tensor, minimised: Tensor, objective: Objective, want_grad: bool
) -> Tensor | None:
    """Writes each token's cross-entropy to losses and its objective to minimised, which may be the same memory. Returns
    the objective's gradient with respect to the logits [t, V], which may be overwritten."""
    learned, target = labels[:, None] != IGNORED, labels[:, None].clamp_min(0)
    dtype, logits = logits.dtype, logits.float()
    probabilities = logits.softmax(-1)
    # log(sum(exp)) by way of the likeliest entry, whose probability cannot underflow.
    log_normalizer = logits.amax(-1, keepdim=True) - probabilities.amax(-1, keepdim=True).log()
    of_target = logits.gather(1, target)
    plain = (log_normalizer - of_target) * learned
    losses.copy_(plain.squeeze(1))
    if objective != PLAIN:
        extra = _extra(objective, logits, log_normalizer, of_target) * learned
        minimised.copy_((plain + extra).squeeze(1))
    if not want_grad:
        return None
    return _grad_logits(objective, probabilities, log_normalizer, target).mul_(learned).to(dtype)


def _extra(objective: Objective, logits: Tensor, log_normalizer: Tensor, of_target: Tensor) -> Tensor:
    """The objective's addition to each token's cross-entropy [t, 1]."""
    extra = objective.z_loss * log_normalizer.square()
    return extra + objective.label_smoothing * (of_target - logits.mean(-1, keepdim=True))


def _grad_logits(objective: Objective, probabilities: Tensor, log_normalizer: Tensor, target: Tensor) -> Tensor:
    """The objective's gradient with respect to the logits [t, V], in the probabilities' memory."""
    smoothing = objective.label_smoothing
    if objective.z_loss:
        probabilities.mul_(1 + 2 * objective.z_loss * log_normalizer)
    if smoothing:
        probabilities.sub_(smoothing / probabilities.shape[1])
    certain = probabilities.new_full((1, 1), smoothing - 1)
    return probabilities.scatter_add_(1, target, certain.expand_as(target))
