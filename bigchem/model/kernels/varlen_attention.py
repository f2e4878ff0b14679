"""The kernels as a differentiable function; inside compiled graphs, as the torch operation bigchem::varlen_attention.

The operation has a fake kernel, so torch.compile keeps it in one graph with its surroundings. Outside, a plain autograd
function is used: the operation's dispatch took a third of the host's time in a step.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigchem.base.errors import UserError
from bigchem.model import dropout
from bigchem.model.kernels import launch
from bigchem.model.kernels.launch import Inputs, Options, Results, run_backward, run_forward, run_grad_bias
from bigchem.model.kernels.tiles import MAX_HEAD_DIM
from bigchem.model.kernels.work import plan_bias, plan_work
from bigchem.model.layout import Layout


def triton_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    """`bigchem.model.attention.attention` by the kernels.

    cu_seqlens are not read back from the device, so they are not checked: they must be those of the layout's lengths,
    and every row must belong to a sequence. Otherwise the results are undefined.
    """
    if q.shape[2] > MAX_HEAD_DIM:
        raise UserError(f"the triton backend serves heads of at most {MAX_HEAD_DIM} dimensions, not {q.shape[2]}")
    if bias is not None and (bias.shape[0] != q.shape[1] or bias.shape[1] % 2 == 0 or bias.shape[1] < 3):
        raise UserError(f"a bias of shape {tuple(bias.shape)} for {q.shape[1]} heads; expected [heads, 2R + 1], R >= 1")
    # The work was planned for the weights' dtype; under autocast, queries may have another.
    work = layout.work
    if layout.work_for != (q.shape[2], q.dtype):
        planned = plan_lengths(layout.lengths_q, layout.lengths_k, q.shape[2], q.dtype, q.device)
        work = [x.to(q.device) for x in planned]
    drops = dropout_p > 0
    hashes, columns = (layout.hashes, layout.columns) if drops else (None, None)
    if drops and columns is None:
        columns = column_factors(layout.max_k, q.device)
    arguments = (hashes, columns, layout.cu_seqlens_q, layout.cu_seqlens_k)
    options = Options(layout.max_q, layout.max_k, causal, float(dropout_p), seed)
    if torch.compiler.is_compiling():
        table = None if bias is None else launch.bias_table(bias, causal)
        out: Tensor = varlen_attention(q, k, v, bias, table, *arguments, list(work), *options)[0]
        return out
    table = None if bias is None else layout.table(bias, causal, launch.bias_table)
    attended: Tensor = _VarlenAttention.apply(q, k, v, bias, _inputs(q, k, v, table, *arguments), work, options)
    return attended


def plan_lengths(
    lengths_q: np.ndarray, lengths_k: np.ndarray, head_dim: int, dtype: torch.dtype, device: torch.device
) -> list[Tensor]:
    """The kernels' work on sequences of these lengths, for a device but on the host; see `Work`."""
    chosen = launch.tiles_for(int(lengths_q.max(initial=0)), int(lengths_k.max(initial=0)), head_dim, dtype, device)
    return [torch.from_numpy(items) for items in plan_work(lengths_q, lengths_k, chosen)]


def plan_bias_lengths(
    lengths_q: np.ndarray, lengths_k: np.ndarray, head_dim: int, dtype: torch.dtype, device: torch.device
) -> list[Tensor]:
    """The work of `grad_of_bias` alone, as `plan_lengths`."""
    chosen = launch.tiles_for(int(lengths_q.max(initial=0)), int(lengths_k.max(initial=0)), head_dim, dtype, device)
    return [torch.from_numpy(plan_bias(lengths_q, chosen))]


def column_factors(longest: int, device: torch.device) -> Tensor:
    """Dropout's factors of keys, for all tiles of sequences of up to `longest` keys. Few sizes, computed once each."""
    return _column_factors(max(256, 1 << (longest + 127).bit_length()), device)


_column_factors = cache(dropout.column_factors)


def grad_of_bias(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    out: Tensor,
    lse: Tensor,
    layout: Layout,
    *,
    causal: bool,
) -> Tensor:
    """The gradient of the bias alone, fp32 [H, 2R + 1], for attention by a library that has none; without dropout.

    out and grad_out [Tq, H, D]; lse fp32 [H, Tq]: natural logarithms of the softmax's denominators. The layout's work,
    if it has some, is that of `plan_bias_lengths`.
    """
    table = layout.table(bias, causal, launch.bias_table)
    inputs = _inputs(q, k, v, table, None, None, layout.cu_seqlens_q, layout.cu_seqlens_k)
    options = Options(layout.max_q, layout.max_k, causal, 0.0, 0)
    work = layout.work
    if layout.work_for != (q.shape[2], q.dtype):
        planned = plan_bias_lengths(layout.lengths_q, layout.lengths_k, q.shape[2], q.dtype, q.device)
        work = [x.to(q.device) for x in planned]
    return run_grad_bias(grad_out.contiguous(), inputs, out, lse, work[0], options)


class _VarlenAttention(torch.autograd.Function):
    """q, k, v and bias: for their gradients; the kernels read `inputs`."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        inputs: Inputs,
        work: Sequence[Tensor],
        options: Options,
    ) -> Tensor:
        ctx.options = options
        results = run_forward(inputs, work[0], options)
        ctx.save_for_backward(*inputs, *results, *work)
        ctx.bias_dtype = None if bias is None else bias.dtype
        return results.out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        inputs, results, work = Inputs(*saved[:8]), Results(*saved[8:11]), saved[11:]
        found = run_backward(grads[0].contiguous(), inputs, results, work, ctx.options)
        of_bias = found[3].to(ctx.bias_dtype) if ctx.bias_dtype is not None else None
        return (*found[:3], of_bias, None, None, None)


@torch.library.custom_op("bigchem::varlen_attention", mutates_args=())
def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    table: Tensor | None,
    hashes: Tensor | None,
    columns: Tensor | None,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    work: list[Tensor],
    max_q: int,
    max_k: int,
    causal: bool,
    dropout_p: float,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """`Results`. work: a `Work` as a list; bias: only for its gradient; see `Inputs`."""
    inputs = _inputs(q, k, v, table, hashes, columns, cu_seqlens_q, cu_seqlens_k)
    out, lse, factors = run_forward(inputs, work[0], Options(max_q, max_k, causal, dropout_p, seed))
    return out, lse, factors


@varlen_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    table: Tensor | None,
    hashes: Tensor | None,
    columns: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    rows = q.shape[1], q.shape[0]
    factors = q.new_empty(rows if rest[6] > 0 else (0,), dtype=torch.int32)
    return q.new_empty(q.shape), q.new_empty(rows, dtype=torch.float32), factors


@torch.library.custom_op("bigchem::varlen_attention_backward", mutates_args=())
def varlen_attention_backward(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    table: Tensor | None,
    hashes: Tensor | None,
    columns: Tensor | None,
    out: Tensor,
    lse: Tensor,
    factors: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    work: list[Tensor],
    max_q: int,
    max_k: int,
    causal: bool,
    dropout_p: float,
    seed: int,
) -> list[Tensor]:
    """Gradients of q, k, v and, if given, the bias (fp32)."""
    inputs = _inputs(q, k, v, table, hashes, columns, cu_seqlens_q, cu_seqlens_k)
    options = Options(max_q, max_k, causal, dropout_p, seed)
    return run_backward(grad_out.contiguous(), inputs, Results(out, lse, factors), work, options)


@varlen_attention_backward.register_fake
def _(grad_out: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, *_rest: Any) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in (q, k, v, bias) if x is not None]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, cu_seqlens_q, cu_seqlens_k, work, max_q, max_k, causal, dropout_p, seed = inputs
    ctx.save_for_backward(*tensors, *output, cu_seqlens_q, cu_seqlens_k, *work)
    ctx.options = (max_q, max_k, causal, dropout_p, seed)
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad_out: Tensor, *_: Tensor) -> tuple[Tensor | list[None] | None, ...]:
    *tensors, w0, w1, w2, w3, w4 = ctx.saved_tensors
    grads = varlen_attention_backward(grad_out, *tensors, [w0, w1, w2, w3, w4], *ctx.options)
    return (*grads, *[None] * (4 - len(grads)), *[None] * 5, [None] * 5, *[None] * 5)


varlen_attention.register_autograd(_backward, setup_context=_setup_context)


def _inputs(*tensors: Tensor | None) -> Inputs:
    """Contiguous tensors, as the kernels require."""
    return Inputs(*(x if x is None else x.contiguous() for x in tensors))  # type: ignore[arg-type]


def dropout_mask(seed: int, dropout_p: float, hashes: Tensor, num_heads: int, num_keys: int) -> Tensor:
    """bool [num_heads, rows, num_keys]: which scores of queries with these hashes [rows] the kernels keep."""
    rows = dropout.row_factors(hashes[None], dropout.head_seeds(seed, num_heads).to(hashes.device)[:, None])
    return dropout.kept(rows[..., None], dropout.column_factors(num_keys, hashes.device), dropout_p)
