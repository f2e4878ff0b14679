"""Attention over packed sequences with T5's relative-position bias: one function, several backends."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bigchem.errors import UserError, unknown
from bigchem.model.functional import dropout, dropout_generator
from bigchem.model.layout import Layout
from bigchem.model.padded import padded_attention

KINDS = ("encoder_self", "decoder_self", "cross")
"""Kinds of attention. The first two have a bias, the second is causal."""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    layout: Layout,
    *,
    causal: bool,
    dropout_p: float,
    seed: int,
    backend: str,
) -> Tensor:
    """softmax(q k^T + bias) v inside each sequence, without a scale (T5 has none); output [Tq, heads, D].

    q [Tq, heads, D], k and v [Tk, heads, D]; bias [heads, 2R + 1] by distance (key minus query, clamped to -R..R), or
    None. Queries without keys give zeros. dropout_p: dropout of the probabilities, its mask a function of the seed
    (flash_attn draws from torch's global generator instead). But for the mask, backends differ by rounding only.
    """
    return BACKENDS[backend].run(q, k, v, bias, layout, causal=causal, dropout_p=dropout_p, seed=seed)


def _eager(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """The reference: one sequence at a time, the formula as it stands, in fp32."""
    generator = dropout_generator(seed, dropout_p, q.device)
    cu_q, cu_k = (cu.tolist() for cu in layout.host)
    outputs = [q.new_zeros(0, *q.shape[1:])]
    for q0, q1, k0, k1 in zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:], strict=True):
        sq, sk, sv = (x.float().transpose(0, 1) for x in (q[q0:q1], k[k0:k1], v[k0:k1]))
        scores = sq @ sk.transpose(1, 2)
        distance = torch.arange(k1 - k0, device=q.device) - torch.arange(q1 - q0, device=q.device)[:, None]
        if bias is not None:
            reach = bias.shape[1] // 2
            scores = scores + bias[:, distance.clamp(-reach, reach) + reach]
        if causal:
            scores = scores.masked_fill(distance > 0, -math.inf)
        outputs.append((dropout(scores.softmax(-1), dropout_p, generator) @ sv).transpose(0, 1).to(q.dtype))
    return torch.cat(outputs)


def _flash_attn(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """FlashAttention-2's varlen kernel."""
    reason = _flash_attn_refusal("encoder_self" if bias is not None else "cross", q.device, q.dtype)
    if reason is not None:
        raise UserError(f"flash_attn cannot serve this attention: {reason}")
    from flash_attn import flash_attn_varlen_func

    out: Tensor = flash_attn_varlen_func(
        q,
        k,
        v,
        layout.cu_seqlens_q,
        layout.cu_seqlens_k,
        layout.max_q,
        layout.max_k,
        dropout_p=dropout_p,
        softmax_scale=1.0,
        causal=causal,
    )
    return out


def _flash_attn_refusal(kind: str, device: torch.device, dtype: torch.dtype) -> str | None:
    if kind != "cross":
        return "it has no relative-position bias"
    if device.type != "cuda":
        return f"it needs CUDA, the device is {device.type}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"it needs fp16 or bf16, not {str(dtype).removeprefix('torch.')}"
    if importlib.util.find_spec("flash_attn") is None:
        return "it is not installed (pip install flash-attn)"
    return None


def _never(kind: str, device: torch.device, dtype: torch.dtype) -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """run: the computation, with the arguments of `attention`. refusal(kind, device, dtype): why it cannot serve, or
    None if it can."""

    run: Callable[..., Tensor]
    refusal: Callable[[str, torch.device, torch.dtype], str | None]


BACKENDS: dict[str, Backend] = {
    "flash_attn": Backend(_flash_attn, _flash_attn_refusal),
    "torch": Backend(torch.compiler.disable(padded_attention), _never),
    "eager": Backend(torch.compiler.disable(_eager), _never),
}
"""In the order of `auto`'s preference."""


def choose_backends(requested: str, device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """The backend of each kind of attention: the one asked for, or with "auto" the first that can serve.

    Raises UserError if the one asked for is unknown or cannot serve a kind.
    """
    if requested == "auto":
        return {kind: next(n for n, b in BACKENDS.items() if b.refusal(kind, device, dtype) is None) for kind in KINDS}
    if requested not in BACKENDS:
        unknown("attention backend", requested, ["auto", *BACKENDS], "model.attention")
    for kind in KINDS:
        reason = BACKENDS[requested].refusal(kind, device, dtype)
        if reason is not None:
            what = f"{requested} cannot serve {kind} attention: {reason}"
            raise UserError(what, "model.attention", "'auto' uses each backend where it can serve")
    return dict.fromkeys(KINDS, requested)


def describe(backends: dict[str, str], device: torch.device, dtype: torch.dtype) -> str:
    """One line: the backend of each kind, and why the ones that `auto` prefers to it were passed over."""
    parts = []
    for kind, chosen in backends.items():
        refusals = {name: backend.refusal(kind, device, dtype) for name, backend in BACKENDS.items()}
        before = list(BACKENDS)[: list(BACKENDS).index(chosen)]
        reasons = "; ".join(f"{name}: {refusals[name] or 'not asked for'}" for name in before)
        parts.append(f"{kind}={chosen}" + (f" ({reasons})" if reasons else ""))
    return "attention: " + ", ".join(parts)
