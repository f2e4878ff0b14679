"""Attention with T5's bias, ours and peers': each function prepares one forward and backward call for a case."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bigchem.bench.model.mix import Rows, grouped
from bigchem.model.attention import Setting, attention, prepare
from bigchem.model.layout import Layout
from bigchem.model.relative_bias import reach


@dataclass(frozen=True)
class Case:
    """lengths: queries and keys of each sequence, [sequences, 2]; kind: see bigchem.model.attention.KINDS."""

    lengths: Rows
    kind: str
    heads: int
    dim: int
    dropout: float
    device: torch.device
    dtype: torch.dtype

    @property
    def causal(self) -> bool:
        return self.kind == "decoder_self"

    @property
    def biased(self) -> bool:
        return self.kind != "cross"

    @property
    def reach(self) -> int:
        """Distances beyond it share one bias in T5."""
        return reach(not self.causal, 32, 128)

    @property
    def setting(self) -> Setting:
        return Setting(self.device, self.dtype, self.dim, self.dropout)

    @property
    def equal(self) -> bool:
        """Whether all lengths are equal, so that padding adds nothing."""
        return bool((self.lengths == self.lengths[0]).all())

    @property
    def flops(self) -> float:
        """FLOPs of forward and backward, as bigchem.model.flops counts them."""
        pairs = float((self.lengths[:, 0] * self.lengths[:, 1]).sum())
        return 12 * self.heads * self.dim * pairs / (2 if self.causal else 1)

    def leaf(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """A random input, scaled to about unit scores, like T5's after initialisation."""
        x: Tensor = torch.randn(*shape, device=self.device, dtype=torch.float32) * self.dim**-0.25
        return x.to(dtype or self.dtype).requires_grad_()


Call = Callable[[], object]


def backward(out: Tensor, leaves: Sequence[Tensor | None], grad: Tensor) -> tuple[Tensor, ...]:
    """Gradients of all leaves but None."""
    return torch.autograd.grad(out, [leaf for leaf in leaves if leaf is not None], grad)


def layout_of(case: Case) -> Layout:
    """The layout of the case's lengths."""
    return Layout.of(case.lengths[:, 0], case.lengths[:, 1], case.device)


def packed_inputs(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """q, k, v, bias and the output's gradient."""
    num_q, num_k = case.lengths.sum(0).tolist()
    q, k, v = (case.leaf(n, case.heads, case.dim) for n in (num_q, num_k, num_k))
    bias = case.leaf(case.heads, 2 * case.reach + 1, dtype=torch.float32) if case.biased else None
    return q, k, v, bias, torch.randn_like(q)


def run(case: Case, backend: str, layout: Layout, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """bigchem's attention."""
    return attention(q, k, v, bias, layout, causal=case.causal, dropout_p=case.dropout, seed=0, backend=backend)


def ours(case: Case, backend: str) -> Call:
    """One of our backends. The layout is built beforehand, as in the model: once for all layers."""
    q, k, v, bias, grad = packed_inputs(case)
    layout = prepare(layout_of(case), backend, case.setting)
    return lambda: backward(run(case, backend, layout, q, k, v, bias), (q, k, v, bias), grad)


def exact(case: Case, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """The formula in float64, sequence by sequence, with our kernels' dropout mask."""
    outputs, hashes = [], layout_of(case).hashes
    (starts_q, starts_k) = (np.append(0, n.cumsum()) for n in case.lengths.T)
    for i in range(len(case.lengths)):
        rows_q, rows_k = slice(starts_q[i], starts_q[i + 1]), slice(starts_k[i], starts_k[i + 1])
        sq, sk, sv = (x[rows].double().transpose(0, 1) for x, rows in ((q, rows_q), (k, rows_k), (v, rows_k)))
        scores = sq @ sk.transpose(1, 2)
        distance = torch.arange(sk.shape[1], device=q.device) - torch.arange(sq.shape[1], device=q.device)[:, None]
        if bias is not None:
            scores = scores + bias.double()[:, distance.clamp(-case.reach, case.reach) + case.reach]
        if case.causal:
            scores = scores.masked_fill(distance > 0, -math.inf)
        probabilities = scores.softmax(-1)
        if case.dropout > 0:
            from bigchem.model.kernels.varlen_attention import dropout_mask

            keep = dropout_mask(0, case.dropout, hashes[rows_q], case.heads, sk.shape[1])
            probabilities = probabilities * keep / (1 - case.dropout)
        outputs.append((probabilities @ sv).transpose(0, 1))
    return torch.cat(outputs)


def padded(case: Case, formula: Callable[..., Tensor]) -> Call:
    """transformers' computation in a layer: padded batches of similar lengths, the stack's bias as a precomputed matrix
    that needs its gradient, plus a mask."""
    calls = []
    budget = 2 * int(case.lengths.sum()) if case.equal else int(case.lengths.sum()) // 4
    for rows in grouped(case.lengths, budget):
        size, (num_q, num_k) = len(rows), rows.max(0).tolist()
        q, k, v = (case.leaf(size, case.heads, n, case.dim) for n in (num_q, num_k, num_k))
        bias = case.leaf(1, case.heads, num_q, num_k) if case.biased else None
        holes = torch.from_numpy(np.arange(num_k) >= rows[:, 1:])[:, None, None].to(case.device)
        if case.equal:  # transformers makes no padding mask without padding
            holes = holes[:1]
        if case.causal:
            holes = holes | torch.ones(num_q, num_k, dtype=torch.bool, device=case.device).triu(1)
        mask = torch.zeros(holes.shape, device=case.device, dtype=case.dtype)
        mask.masked_fill_(holes, torch.finfo(case.dtype).min)
        calls.append((q, k, v, bias, mask, torch.randn_like(q)))

    def call() -> None:
        for *leaves, mask, grad in calls:
            backward(formula(*leaves, mask, case.dropout), leaves, grad)

    return call


def transformers_eager(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor, dropout: float) -> Tensor:
    """transformers.models.t5.modeling_t5.eager_attention_forward."""
    scores = q @ k.transpose(2, 3)
    scores = scores + (mask if bias is None else bias + mask)
    weights = scores.softmax(-1)
    return F.dropout(weights, dropout) @ v


def transformers_sdpa(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor, dropout: float) -> Tensor:
    """transformers.integrations.sdpa_attention on T5: bias and mask as one matrix per sequence."""
    mask = mask if bias is None else bias + mask
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=1.0)


def transformers_cudnn(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor, dropout: float) -> Tensor:
    """transformers_sdpa by cuDNN alone, which refuses what it cannot compute."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return transformers_sdpa(q, k, v, bias, mask, dropout)


def flash_t5(case: Case) -> Call:
    """FAT5's Triton kernel (https://github.com/catie-aq/flashT5, a checkout on PYTHONPATH), on equal lengths: the bias
    is a matrix, whose gradient it sums over sequences."""
    from src.model.ops.flash_attention_v2_bias import flash_attention_v2_bias

    num_q, num_k = case.lengths[0].tolist()
    q, k, v = (case.leaf(len(case.lengths), case.heads, n, case.dim) for n in (num_q, num_k, num_k))
    bias = case.leaf(1, case.heads, num_q, num_k) if case.biased else None
    grad = torch.randn_like(q)
    return lambda: backward(flash_attention_v2_bias(q, k, v, bias, case.causal, 1.0), (q, k, v, bias), grad)


@cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    # Past the limit of 8, dynamo would silently continue uncompiled, with a dense matrix.
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(flex_attention, dynamic=False)


def flex(case: Case) -> Call:
    """FlexAttention's Triton back end on packed rows; its FLASH back end has no gradient of a captured bias. A block
    mask separates sequences: made before the call, though training needs one per batch. score_mod gathers the bias."""
    from torch.nn.attention.flex_attention import FlexKernelOptions, create_block_mask

    q, k, v, bias, grad = packed_inputs(case)
    sides = [np.repeat(np.arange(len(case.lengths)), n) for n in case.lengths.T]
    of_q, of_k = (torch.from_numpy(side).to(case.device) for side in sides)

    far = case.reach

    def mask_mod(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        same = of_q[i] == of_k[j]
        return same & (i >= j) if case.causal else same

    def score_mod(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score if bias is None else score + bias[h, (j - i).clamp(-far, far) + far]

    block_mask = create_block_mask(mask_mod, None, None, len(q), len(k), device=str(case.device), _compile=True)
    leaves = [x.detach().transpose(0, 1)[None].contiguous().requires_grad_() for x in (q, k, v)]
    grad = grad.transpose(0, 1)[None].contiguous()
    options: dict[str, Any] = {"score_mod": score_mod, "block_mask": block_mask, "scale": 1.0}
    if "BACKEND" in FlexKernelOptions.__annotations__:  # an older torch has no other
        options["kernel_options"] = {"BACKEND": "TRITON"}
    return lambda: backward(_compiled_flex()(*leaves, **options), (*leaves, bias), grad)


PEERS: dict[str, Callable[[Case], Call]] = {
    "transformers sdpa, full bias": lambda case: padded(case, transformers_sdpa),
    "transformers eager, full bias": lambda case: padded(case, transformers_eager),
    "cuDNN sdpa, full bias": lambda case: padded(case, transformers_cudnn),
    "FAT5": flash_t5,
    "FlexAttention": flex,
}
"""Peers that compute the same as ours; the one that compiles for long is last."""


def refusal(name: str, case: Case) -> str | None:
    """Why a peer cannot take part in a case, or None."""
    cuda = case.device.type == "cuda"
    reasons = {
        "cuDNN sdpa, full bias": [(not cuda, "it needs CUDA")],
        "FAT5": [
            (not cuda, "it needs CUDA"),
            (find_spec("src") is None, "its checkout is not on PYTHONPATH"),
            (bool(case.dropout), "it has no dropout"),
            (not case.equal, "it supports only equal lengths"),
        ],
        "FlexAttention": [(bool(case.dropout), "it has no dropout"), (not cuda, "it has no backward pass on a CPU")],
    }
    return next((reason for holds, reason in reasons.get(name, []) if holds), None)
