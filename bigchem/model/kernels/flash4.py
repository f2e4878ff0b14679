"""FlashAttention-4 (`flash-attn-4`) with T5's bias, as its score_mod, and with our kernel for the bias's gradient.

From flash_attn.cute 4.0.0b36: with varlen, a score_mod gets indices within the sequence, taken modulo its length beyond
its end, where scores are masked afterwards; scores are those that the softmax sees, scaled and not in units of log2(e);
a score_mod that reads a tensor gets one score at a time; causal masks apply after it. FlashAttention-4 gives a tensor
that a score_mod reads no gradient. Nothing here has run on a GPU.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from bigchem.model.kernels.varlen_attention import grad_of_bias
from bigchem.model.layout import Layout


def flash4_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool) -> Tensor:
    """`bigchem.model.attention.attention` by FlashAttention-4's varlen kernels, without dropout. Compiled on first use
    for each shape of head."""
    from flash_attn.cute.interface import flash_attn_varlen_func

    of_bias: dict[str, Any] = {}
    if bias is not None:
        mod, mod_backward = _score_mods(bias.shape[1] // 2)
        aux = [bias.detach().contiguous()]
        of_bias = {"score_mod": mod, "score_mod_bwd": mod_backward, "aux_tensors": aux, "return_lse": True}
    out, lse = flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q=layout.cu_seqlens_q,
        cu_seqlens_k=layout.cu_seqlens_k,
        max_seqlen_q=layout.max_q,
        max_seqlen_k=layout.max_k,
        softmax_scale=1.0,
        causal=causal,
        **of_bias,
    )
    if bias is None:
        return cast(Tensor, out)
    attended: Tensor = _BiasGradient.apply(out, bias, q, k, v, lse, layout, causal)
    return attended


class _BiasGradient(torch.autograd.Function):
    """Passes attention's output and its gradient through, and adds the bias's gradient. The others' are
    FlashAttention-4's."""

    @staticmethod
    def forward(
        ctx: Any, out: Tensor, bias: Tensor, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, layout: Layout, causal: bool
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, bias, out, lse)
        ctx.layout, ctx.causal = layout, causal
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        of_bias = None
        if ctx.needs_input_grad[1]:
            q, k, v, bias, out, lse = ctx.saved_tensors
            of_bias = grad_of_bias(grads[0], q, k, v, bias, out, lse, ctx.layout, causal=ctx.causal).to(bias.dtype)
        return (grads[0], of_bias, *[None] * 6)


@cache
def _score_mods(reach: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(bias [heads, 2 * reach + 1] added to scores, the gradient of that by the scores), in FlashAttention-4's DSL."""
    import cutlass
    from cutlass import cute
    from flash_attn.cute import utils

    @cute.jit
    def add_bias(score: Any, batch: Any, head: Any, q_idx: Any, kv_idx: Any, seqlen_info: Any, aux_tensors: Any) -> Any:
        bias = aux_tensors[0]
        distance = cutlass.min(cutlass.max(kv_idx[0] - q_idx[0], -reach), reach)
        added = utils.scalar_to_ssa(bias[head[0], distance + reach], bias.element_type)
        return score + added.to(cutlass.Float32)

    @cute.jit
    def pass_on(
        grad: Any, score: Any, batch: Any, head: Any, q_idx: Any, kv_idx: Any, seqlen_info: Any, aux_tensors: Any
    ) -> Any:
        return grad

    return add_bias, pass_on
