"""T5 between its matrix products: RMS norm and the loss over the vocabulary.

Custom code only where it measured faster. On CUDA, norms are torch's fused kernels.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bigchem.model.linear import matmul_t

IGNORED = -100
"""Label of target tokens that are not learned."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in fp32, returned in the dtype of x."""
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        normed: Tensor = _RMSNorm.apply(x, weight, eps)
        return normed
    return F.rms_norm(x, weight.shape, weight, eps)


class _RMSNorm(torch.autograd.Function):
    """Four passes over memory; torch's CPU composite takes about ten."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        x32 = x.float()
        scale = torch.linalg.vecdot(x32, x32).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)
        ctx.save_for_backward(x, weight, scale)
        normed: Tensor = (x32 * scale).mul_(weight).to(x.dtype)
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        grad = grads[0].float()
        normed = x.float() * scale
        grad_weight = (grad * normed).sum(0)
        grad_normed = grad * weight
        mean = torch.linalg.vecdot(grad_normed, normed).div_(x.shape[-1]).unsqueeze(-1)
        return grad_normed.sub_(normed.mul_(mean)).mul_(scale).to(x.dtype), grad_weight.to(weight.dtype), None


_LOGITS_PER_CHUNK = {"cpu": 2**23, "cuda": 2**26}
"""Logits in memory at a time. CPU: measured best of 2^21..2^26; more exceed the cache, with fewer oneDNN repacks the
weights too often."""


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
        losses = torch.zeros(len(hidden), dtype=torch.float32, device=hidden.device)
        total = losses.new_zeros(())
        if want_grad:
            grad_hidden = torch.empty_like(hidden)
            grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        chunk = max(1, _LOGITS_PER_CHUNK.get(hidden.device.type, 2**26) // len(weight))
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            learned = labels[part, None] != IGNORED
            target = labels[part, None].clamp_min(0)
            logits = matmul_t(hidden[part], weight).float()
            probabilities = logits.softmax(-1)
            # log(sum(exp)) by way of the likeliest entry, whose probability cannot underflow.
            top, top_index = logits.max(-1, keepdim=True)
            log_normalizer = top - probabilities.gather(1, top_index).log()
            of_target = logits.gather(1, target)
            losses[part] = ((log_normalizer - of_target) * learned).squeeze(1)
            if objective != PLAIN:
                total += (_extra(objective, logits, log_normalizer, of_target) * learned).sum()
            if want_grad:
                grad_logits = _grad_logits(objective, probabilities, log_normalizer, target)
                grad_logits = grad_logits.mul_(learned).to(hidden.dtype)
                grad_hidden[part] = matmul_t(grad_logits, weight.t())
                grad_weight += matmul_t(hidden[part].t(), grad_logits.t()).t()
        if want_grad:
            ctx.save_for_backward(grad_hidden, grad_weight)
            ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses)
        return total + losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        # In fp32: rounded to bf16, the scale would be off by up to 0.35 % in every gradient of the step, and by a
        # different amount at another world size.
        scaled = (grad_hidden * grads[0]) if grad_hidden.dtype == torch.float32 else grad_hidden.float().mul_(grads[0])
        return scaled.to(grad_hidden.dtype), (grad_weight * grads[0]).to(ctx.weight_dtype), None, None, None


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
