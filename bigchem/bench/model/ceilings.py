"""Attention without T5's bias, forward and backward: an upper bound for any kernel that has one."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from bigchem.bench.model.peers import Call, Case, backward, layout_of, packed_inputs, run
from bigchem.model.attention import BACKENDS


def sdpa(case: Case, kernel: str) -> Call:
    """A kernel of torch's SDPA, a member of torch.nn.attention.SDPBackend, on equal lengths."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    num_q, num_k = case.lengths[0].tolist()
    q, k, v = (case.leaf(len(case.lengths), case.heads, n, case.dim) for n in (num_q, num_k, num_k))
    grad = torch.randn_like(q)

    def call() -> object:
        with sdpa_kernel(getattr(SDPBackend, kernel)):
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=case.dropout, is_causal=case.causal, scale=1.0)
        return backward(out, (q, k, v), grad)

    return call


def varlen(case: Case, backend: str) -> Call:
    """One of our backends on packed rows, without the bias."""
    q, k, v, _, grad = packed_inputs(case)
    layout = layout_of(case)
    return lambda: backward(run(case, backend, layout, q, k, v, None), (q, k, v), grad)


_SDPA = {"SDPA flash, no bias": "FLASH_ATTENTION", "SDPA cuDNN, no bias": "CUDNN_ATTENTION"}
_VARLEN = {"FlashAttention-2, no bias": "flash_attn", "FlashAttention-4, no bias": "flash4"}
CEILINGS: dict[str, Callable[[Case], Call]] = {
    **{name: partial(sdpa, kernel=kernel) for name, kernel in _SDPA.items()},
    **{name: partial(varlen, backend=backend) for name, backend in _VARLEN.items()},
}


def refusal(name: str, case: Case) -> str | None:
    """Why a ceiling cannot take part in a case, or None."""
    if case.device.type != "cuda":
        return "timed on CUDA only"
    if name in _SDPA:
        return None if case.equal else "it supports only equal lengths"
    if not case.biased:
        return "without a bias it is one of ours"
    return BACKENDS[_VARLEN[name]].refusal("cross", case.setting)
