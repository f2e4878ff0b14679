"""A stand-in for FlashAttention-4 and the DSL of its score_mods, which need a GPU: what bigchem uses of flash-attn-4
4.0.0b36, by its names, in plain torch and float64."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor


def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the stand-in what `import flash_attn.cute` and `import cutlass` find."""
    interface = {"flash_attn_varlen_func": flash_attn_varlen_func}
    utils = {"scalar_to_ssa": lambda scalar, dtype: scalar.reshape(1).to(dtype)}
    cutlass = {"Float32": torch.float64, "min": min, "max": max}
    for name, content in {
        "cutlass": cutlass,
        "cutlass.cute": {"jit": lambda function: function},
        "flash_attn": {},
        "flash_attn.cute": {},
        "flash_attn.cute.interface": interface,
        "flash_attn.cute.utils": utils,
    }.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


class Read:
    """A tensor that score_mods read; it gets no gradient."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.element_type = tensor.detach(), tensor.dtype

    def __getitem__(self, place: tuple[Any, ...]) -> Tensor:
        return self.tensor[tuple(int(x) for x in place)]


class Modified(torch.autograd.Function):
    """The scores [H, M, N] of one sequence, one by one through score_mod, and their gradients through score_mod_bwd."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, mod: Callable[..., Tensor], backward: Callable[..., Tensor], rest: Any
    ) -> Tensor:
        ctx.save_for_backward(scores)
        ctx.backward, ctx.rest = backward, rest
        return each(scores, lambda place, *fields, **named: mod(scores[place].view(1), *fields, **named), rest)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (scores,) = ctx.saved_tensors

        def one(place: Any, *fields: Any, **named: Any) -> Tensor:
            return ctx.backward(grads[0][place].view(1), scores[place].view(1), *fields, **named)

        return each(scores, one, ctx.rest), None, None, None


def each(scores: Tensor, function: Callable[..., Tensor], rest: tuple[int, list[Read]]) -> Tensor:
    """A function of every score, given its place in its sequence as FlashAttention-4 does."""
    found, (batch, aux) = torch.empty_like(scores), rest
    for place in torch.cartesian_prod(*map(torch.arange, scores.shape)).tolist():
        head, q_idx, kv_idx = (torch.tensor([x], dtype=torch.int32) for x in place)
        named = {"q_idx": q_idx, "kv_idx": kv_idx, "seqlen_info": None, "aux_tensors": aux}
        found[tuple(place)] = function(tuple(place), torch.tensor([batch]), head, **named)
    return found


def flash_attn_varlen_func(
    q: Tensor, k: Tensor, v: Tensor, *, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
    max_seqlen_k: int, softmax_scale: float | None = None, causal: bool = False,
    score_mod: Callable[..., Tensor] | None = None, score_mod_bwd: Callable[..., Tensor] | None = None,
    aux_tensors: list[Tensor] | None = None, return_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """(out [Tq, H, D], lse fp32 [H, Tq] in natural logarithms)."""
    cu_q, cu_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    assert max_seqlen_q == cu_seqlens_q.diff().max()
    assert max_seqlen_k == cu_seqlens_k.diff().max()
    scale = q.shape[2] ** -0.5 if softmax_scale is None else softmax_scale
    outputs, sums, aux = [], [], [Read(x) for x in aux_tensors or ()]
    for batch, (q0, q1, k0, k1) in enumerate(zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:], strict=True)):
        scores = torch.einsum("qhd,khd->hqk", q[q0:q1].double(), k[k0:k1].double()) * scale
        if score_mod is not None:
            scores = Modified.apply(scores, score_mod, score_mod_bwd, (batch, aux))
        if causal:
            scores = scores.masked_fill(torch.ones(q1 - q0, k1 - k0).triu(1 + k1 - k0 - q1 + q0).bool(), -torch.inf)
        sums.append(scores.logsumexp(-1).float())
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[k0:k1].double()))
    return torch.cat(outputs).to(q.dtype), torch.cat(sums, 1) if return_lse else None
