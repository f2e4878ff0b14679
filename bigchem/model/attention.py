"""Attention over packed sequences with T5's relative-position bias: one function, several backends."""

import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bigchem.base.errors import UserError, unknown
from bigchem.base.installed.packages import install, install_extra, version_of
from bigchem.model import dropout
from bigchem.model.kernels.tiles import MAX_HEAD_DIM
from bigchem.model.layout import Layout
from bigchem.model.padded import padded_attention

KINDS = ("encoder_self", "decoder_self", "cross")
"""Kinds of attention. The first two have a bias; the second is causal."""


class Setting(NamedTuple):
    """What a backend must support. dropout: of the probabilities."""

    device: torch.device
    dtype: torch.dtype
    head_dim: int
    dropout: float = 0.0


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
    """softmax(q k^T + bias) v within each sequence, unscaled as in T5; output [Tq, heads, D].

    q [Tq, heads, D], k and v [Tk, heads, D]; bias [heads, 2R + 1] by distance (key minus query, clamped to -R..R), or
    None. Queries without keys give zeros. dropout_p: dropout of the probabilities, with a mask that depends on the seed
    (from `dropout.place_seed`), the query's token, the head and the key's position, in every backend but flash_attn,
    which draws from torch's global generator. Backends differ by rounding.
    """
    return BACKENDS[backend].run(q, k, v, bias, layout, causal=causal, dropout_p=dropout_p, seed=seed)


def _eager(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """The reference: the formula, one sequence at a time, in fp32, or in float64 for inputs in float64."""
    wide = torch.promote_types(q.dtype, torch.float32)
    heads = dropout.head_seeds(seed, q.shape[1]).to(q.device)
    cu_q, cu_k = (cu.tolist() for cu in layout.host)
    outputs = [q.new_zeros(0, *q.shape[1:])]
    for q0, q1, k0, k1 in zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:], strict=True):
        sq, sk, sv = (x.to(wide).transpose(0, 1) for x in (q[q0:q1], k[k0:k1], v[k0:k1]))
        scores = sq @ sk.transpose(1, 2)
        distance = torch.arange(k1 - k0, device=q.device) - torch.arange(q1 - q0, device=q.device)[:, None]
        if bias is not None:
            reach = bias.shape[1] // 2
            scores = scores + bias[:, distance.clamp(-reach, reach) + reach]
        if causal:
            scores = scores.masked_fill(distance > 0, -math.inf)
        rows = dropout.row_factors(layout.hashes[q0:q1], heads[:, None])
        probabilities = dropout.drop(scores.softmax(-1), rows, dropout_p)
        outputs.append((probabilities @ sv).transpose(0, 1).to(q.dtype))
    return torch.cat(outputs)


def _flash_attn(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """FlashAttention-2's varlen kernel."""
    kind = "encoder_self" if bias is not None else "cross"
    reason = _flash_attn_refusal(kind, Setting(q.device, q.dtype, q.shape[2]))
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


def _flash_attn_refusal(kind: str, setting: Setting) -> str | None:
    if kind != "cross":
        return "it has no relative-position bias"
    reason = _no_flash(setting)
    if reason is None and not installed("flash-attn"):
        return f"it is not installed ({install('--no-build-isolation', 'flash-attn')})"
    return reason


def _no_flash(setting: Setting) -> str | None:
    """Why no FlashAttention can serve; None where one may."""
    if setting.device.type != "cuda":
        return f"it needs CUDA, the device is {setting.device.type}"
    if setting.dtype not in (torch.float16, torch.bfloat16):
        return f"it needs fp16 or bf16, not {_name(setting.dtype)}"
    return None


@cache
def installed(distribution: str) -> bool:
    """Whether a distribution is installed. flash-attn and flash-attn-4 share a package, so importing does not tell."""
    return version_of(distribution) is not None


def _flash4(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """FlashAttention-4's kernels for Hopper and Blackwell, with our kernel for the bias's gradient."""
    reason = _flash4_refusal("cross" if bias is None else "self", Setting(q.device, q.dtype, q.shape[2], dropout_p))
    if reason is not None:
        raise UserError(f"flash4 cannot serve this attention: {reason}")
    from bigchem.model.kernels.flash4 import flash4_attention

    return flash4_attention(q, k, v, bias, layout, causal=causal)


def _flash4_refusal(kind: str, setting: Setting) -> str | None:
    reason = _no_flash(setting) or _no_flash4(setting)
    if reason is None and kind != "cross" and (ours := _triton_refusal(kind, setting)) is not None:
        return f"the bias's gradient is by our Triton kernel: {ours}"
    return reason


def _no_flash4(setting: Setting) -> str | None:
    if setting.dropout > 0:
        return f"it has no dropout, and the probabilities' is {setting.dropout:g}"
    if setting.head_dim % 8 or setting.head_dim > MAX_HEAD_DIM:
        return f"it serves heads of 8, 16, ... {MAX_HEAD_DIM} dimensions, not {setting.head_dim}"
    if torch.cuda.is_available() and torch.cuda.get_device_capability(setting.device)[0] not in (9, 10):
        name = torch.cuda.get_device_name(setting.device)
        return f"it needs compute capability 9.0 (H100) or 10.0 (B200); this is a {name}"
    if not installed("flash-attn-4"):
        return f"it is not installed ({install_extra('cuda')})"
    return None


def _triton(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """Our kernels, imported on first use."""
    from bigchem.model.kernels.varlen_attention import triton_attention

    return triton_attention(q, k, v, bias, layout, causal=causal, dropout_p=dropout_p, seed=seed)


def plan(backend: str, lengths_q: np.ndarray, lengths_k: np.ndarray, setting: Setting) -> list[Tensor]:
    """What a backend derives from the lengths [B] for all layers, on the host; empty if nothing."""
    if backend not in ("triton", "flash4"):
        return []
    from bigchem.model.kernels import varlen_attention

    plan_lengths = varlen_attention.plan_lengths if backend == "triton" else varlen_attention.plan_bias_lengths
    return plan_lengths(lengths_q, lengths_k, setting.head_dim, setting.dtype, setting.device)


def prepare(layout: Layout, backend: str, setting: Setting, work: Sequence[Tensor] | None = None) -> Layout:
    """Gives a layout its backend's plan, from `plan` and on the device; None: planned and copied now. Do it once for
    all layers, outside of compiled graphs."""
    if work is None:
        work = [x.to(setting.device) for x in plan(backend, layout.lengths_q, layout.lengths_k, setting)]
    layout.work, layout.work_for = work, (setting.head_dim, setting.dtype)
    if backend == "triton":
        from bigchem.model.kernels.varlen_attention import column_factors

        layout.columns = column_factors(layout.max_k, setting.device)
    return layout


def _triton_refusal(kind: str, setting: Setting) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return f"it is not installed ({install('triton')})"
    if setting.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it needs fp32, fp16 or bf16, not {_name(setting.dtype)}"
    if setting.head_dim > MAX_HEAD_DIM:
        return f"it serves heads of at most {MAX_HEAD_DIM} dimensions, not {setting.head_dim}"
    if setting.device.type != "cuda":
        interpreted = setting.device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
        return None if interpreted else f"it needs CUDA, the device is {setting.device.type}"
    if torch.cuda.is_available() and torch.cuda.get_device_capability(setting.device) < (8, 0):
        return f"it needs compute capability 8.0 (A100) or later; this is a {torch.cuda.get_device_name()}"
    return None


def _never(kind: str, setting: Setting) -> str | None:
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Backend:
    """run: takes the arguments of `attention`. refusal(kind, setting): why it cannot serve, or None if it can. kinds:
    those that a run that names it uses it for."""

    run: Callable[..., Tensor]
    refusal: Callable[[str, Setting], str | None]
    kinds: tuple[str, ...] = KINDS


BACKENDS: dict[str, Backend] = {
    "flash_attn": Backend(_flash_attn, _flash_attn_refusal, kinds=("cross",)),
    "triton": Backend(_triton, _triton_refusal),
    "torch": Backend(padded_attention, _never),
    "eager": Backend(_eager, _never),
    "flash4": Backend(_flash4, _flash4_refusal),
}
"""In `auto`'s order of preference. flash4 follows eager, which serves everything: it has not been measured, so a run
must name it."""


@cache
def keep_out_of_graphs() -> None:
    """Excludes from compiled graphs the backends that Dynamo cannot trace. Call it before compiling blocks, not
    at import: `torch.compiler.disable` loads Dynamo, which takes 1.1 s."""
    for name in ("torch", "eager", "flash4"):
        BACKENDS[name] = replace(BACKENDS[name], run=torch.compiler.disable(BACKENDS[name].run))


def choose_backends(requested: str, setting: Setting) -> dict[str, str]:
    """The backend of each kind of attention: with "auto" the first that can serve; a named one for its own kinds.

    UserError if the named one is unknown or cannot serve one of them.
    """
    chosen = {kind: next(n for n in BACKENDS if why_not(n, kind, setting) is None) for kind in KINDS}
    if requested == "auto":
        return chosen
    if requested not in BACKENDS:
        unknown("attention backend", requested, ["auto", *BACKENDS], "model.attention")
    for kind in BACKENDS[requested].kinds:
        reason = BACKENDS[requested].refusal(kind, setting)
        if reason is not None:
            what = f"{requested} cannot serve {kind} attention: {reason}"
            raise UserError(what, "model.attention", "'auto' uses each backend where it can serve")
        chosen[kind] = requested
    return chosen


def why_not(name: str, kind: str, setting: Setting) -> str | None:
    """Why `auto` would not choose a backend for a kind of attention; None if it would."""
    if name == "triton" and setting.device.type == "cpu":
        return "it needs CUDA, the device is cpu"  # the interpreter is for tests: a thousand times slower than torch
    reason = BACKENDS[name].refusal(kind, setting)
    if reason is None and name == "flash_attn" and setting.dropout > 0:
        return "its dropout depends on the packing and the rank"  # the loss curve would, too
    return reason


def describe(backends: dict[str, str], setting: Setting) -> str:
    """One line: the backend of each kind, and why those that `auto` prefers were passed over."""
    parts = []
    for kind, chosen in backends.items():
        preferred = list(BACKENDS)[: list(BACKENDS).index(chosen)]
        reasons = "; ".join(f"{name}: {why_not(name, kind, setting) or 'not requested'}" for name in preferred)
        parts.append(f"{kind}={chosen}" + (f" ({reasons})" if reasons else ""))
    return "attention: " + ", ".join(parts)
