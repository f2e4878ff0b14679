"""FlashAttention-4 with T5's bias, against float64. It needs a GPU: a stand-in computes what it would."""

import flash4_stand_in
import pytest
import torch

pytest.importorskip("triton")

from bigchem.base.errors import UserError
from bigchem.model.attention import Setting, attention, prepare
from bigchem.model.kernels import flash4
from bigchem.model.layout import Layout

HEADS, DIM, REACH = 2, 16, 3


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    flash4_stand_in.installed(monkeypatch)
    monkeypatch.setattr(flash4, "_score_mods", flash4._score_mods.__wrapped__)
    monkeypatch.setattr("bigchem.model.attention._no_flash", lambda setting: None)
    monkeypatch.setattr("bigchem.model.attention.installed", lambda name: True)


@pytest.mark.parametrize("planned", [True, False], ids=["planned", "not planned"])
@pytest.mark.parametrize("kind", ["encoder_self", "decoder_self", "cross"])
def test_output_and_gradients_are_t5s(kind: str, planned: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths_q, lengths_k = [5, 0, 12, 1], [3, 2, 1, 9] if kind == "cross" else [5, 0, 12, 1]
    rows = [(sum(n), HEADS, DIM) for n in (lengths_q, lengths_k, lengths_k, lengths_q)]
    q, k, v, upstream = (torch.randn(size, generator=generator) for size in rows)
    bias = torch.randn(HEADS, 2 * REACH + 1, generator=generator)
    wanted = [q, k, v, bias] if kind != "cross" else [q, k, v]

    def computed(backend: str, dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [x.to(dtype).requires_grad_() for x in wanted]
        layout = Layout.of(lengths_q, lengths_k)
        if planned:
            layout = prepare(layout, backend, Setting(torch.device("cpu"), dtype, DIM))
        arguments = leaves if kind != "cross" else [*leaves, None]
        causal = kind == "decoder_self"
        out = attention(*arguments, layout, causal=causal, dropout_p=0.0, seed=0, backend=backend)
        return [out, *torch.autograd.grad((out * upstream).sum(), leaves)]

    for found, expected in zip(computed("flash4", torch.float32), computed("eager", torch.float64), strict=True):
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_it_refuses_dropout_by_itself() -> None:
    q = torch.randn(3, HEADS, DIM)
    with pytest.raises(UserError, match="flash4 cannot serve this attention: it has no dropout"):
        attention(q, q, q, None, Layout.of([3], [3]), causal=False, dropout_p=0.1, seed=0, backend="flash4")
