"""Our attention inside transformers' own T5: `attn_implementation="bigchem"`, once `register` has been called.

It serves whole sequences with padding at the end: the encoder, cross-attention, and the decoder where it has no cache,
as in training; padding is dropped before the kernels and put back behind them. Everything else is transformers' `sdpa`:
the steps of `generate`, dropout of probabilities, other masks, devices for which `auto` would choose `torch`.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from bigchem.model.attention import Setting, attention, choose_backends, prepare
from bigchem.model.layout import Layout

NAME = "bigchem"


class _Packing(NamedTuple):
    """A padded batch without its padding. queries, keys: the real rows among [B * length]."""

    layout: Layout
    queries: Tensor
    keys: Tensor
    causal: bool


def register(backend: str = "auto") -> None:
    """Makes the name known to transformers. backend: as `model.attention`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    packings = WeakTensorKeyDictionary()

    def forward(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """[B, heads, length, D] each -> [B, length, heads, D]."""
        kind = "decoder_self" if module.is_causal else "cross" if module.is_decoder else "encoder_self"
        setting = Setting(query.device, query.dtype, query.shape[3], options.get("dropout", 0.0))
        chosen = choose_backends(backend, setting)[kind]
        whole = query.shape[2] > 1 and (kind == "cross" or query.shape[2] == key.shape[2])
        packing: _Packing | None = None
        if whole and setting.dropout == 0 and chosen in ("triton", "flash_attn", backend):
            shape = (kind, query.shape[0], query.shape[2], key.shape[2], query.device)
            if mask is not None and mask not in packings:
                packings[mask] = _packing(mask, *shape)
            packing = _unpadded(*shape) if mask is None else packings[mask]
        if packing is None:
            out: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, mask, **options)
            return out
        bias = None if kind == "cross" else _by_distance(options["position_bias"])
        return _attend(packing, query, key, value, bias, chosen), None

    AttentionInterface.register(NAME, forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attend(packing: _Packing, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, backend: str) -> Tensor:
    """Attention of a padded batch by a backend, without its padding, which is zero in the result."""
    layout, heads, dim = packing.layout, query.shape[1], query.shape[3]
    if not layout.work:
        prepare(layout, backend, Setting(query.device, query.dtype, dim))
    q = _rows(query).index_select(0, packing.queries)
    k, v = (_rows(x).index_select(0, packing.keys) for x in (key, value))
    made = attention(q, k, v, bias, layout, causal=packing.causal, dropout_p=0.0, seed=0, backend=backend)
    batch, length = query.shape[0], query.shape[2]
    padded = made.new_zeros(batch * length, heads, dim).index_copy(0, packing.queries, made)
    return padded.view(batch, length, heads, dim)


def _rows(x: Tensor) -> Tensor:
    """[B, heads, length, D] -> [B * length, heads, D]."""
    return x.transpose(1, 2).flatten(0, 1)


def _by_distance(bias: Tensor) -> Tensor:
    """T5's bias [1, heads, length, length] as the kernels read it: fp32 [heads, 2 * length - 1], by distance."""
    return torch.cat([bias[0, :, -1, :-1], bias[0, :, 0]], dim=1).float()


@lru_cache(maxsize=8)
def _unpadded(kind: str, batch: int, queries: int, keys: int, device: torch.device) -> _Packing:
    """The packing of sequences of equal length."""
    layout = Layout.of([queries] * batch, [keys] * batch, device)
    of_queries, of_keys = (torch.arange(batch * length, device=device) for length in (queries, keys))
    return _Packing(layout, of_queries, of_keys, kind == "decoder_self")


def _packing(mask: Tensor, kind: str, batch: int, queries: int, keys: int, device: torch.device) -> _Packing | None:
    """The packing of a mask [B, 1, queries or 1, keys], true where attended; None unless it is padding at the end, and
    in the decoder the future. Layers share a mask: it is looked at once for all of them."""
    if mask.dtype is not torch.bool:
        return None
    lengths = mask[:, 0, -1].sum(1)
    real = torch.arange(keys, device=device) < lengths[:, None]
    expected = real[:, None, None, :].expand(batch, 1, queries, keys)
    if kind == "decoder_self":
        expected = expected & torch.ones(queries, keys, dtype=torch.bool, device=device).tril()
    if not torch.equal(mask.expand(batch, 1, queries, keys), expected):
        return None
    asking = real if kind == "encoder_self" else torch.ones(batch, queries, dtype=torch.bool, device=device)
    layout = Layout.of(asking.sum(1).tolist(), lengths.tolist(), device)
    of_queries, of_keys = (which.flatten().nonzero()[:, 0] for which in (asking, real))
    return _Packing(layout, of_queries, of_keys, kind == "decoder_self")
