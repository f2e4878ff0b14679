"""`attn_implementation="bigchem"` in transformers' T5: the numbers of `eager`, by our kernels where they fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import V1_0
from transformers import T5Config, T5ForConditionalGeneration

from bigchem.model import in_transformers
from bigchem.model.in_transformers import attention as entry
from bigchem.model.presets import to_hf_config


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often our attention runs, by whether it is causal and has a bias."""
    plainly, found = entry.attention, Counter[str]()

    def counting(*args: Any, **options: Any) -> torch.Tensor:
        found["cross" if args[3] is None else ("encoder_self", "decoder_self")[options["causal"]]] += 1
        return plainly(*args, **options)

    monkeypatch.setattr(entry, "attention", counting)
    yield found
    in_transformers.register()


def model(name: str) -> Any:
    torch.manual_seed(0)
    made = T5ForConditionalGeneration(T5Config.from_dict(to_hf_config(SHAPE, 0.0)))
    made.set_attn_implementation(name)
    return made


SHAPE = replace(V1_0, num_layers=3)  # transformers' cache has as many layers as the encoder
SOURCES = torch.tensor([[5, 6, 7, 8, 1, 0, 0], [9, 4, 1, 0, 0, 0, 0], [3, 3, 3, 3, 3, 3, 1]])
LABELS = torch.tensor([[7, 1, -100, -100], [5, 5, 5, 1], [6, 4, 1, -100]])
MASK = (SOURCES != 0).long()


@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=pytest.mark.thorough)])
def test_loss_and_gradients_are_those_of_eager(used: Counter[str], backend: str) -> None:
    in_transformers.register(backend)
    ours, theirs = model("bigchem"), model("eager")
    losses = [m(input_ids=SOURCES, attention_mask=MASK, labels=LABELS).loss for m in (ours, theirs)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4, msg=name)
    layers = SHAPE.num_layers
    assert used == {"encoder_self": layers, "cross": layers, "decoder_self": layers}


def test_generation_is_that_of_eager_and_its_steps_are_not_ours(used: Counter[str]) -> None:
    in_transformers.register("torch")
    made = [
        m.eval().generate(SOURCES, attention_mask=MASK, num_beams=2, max_new_tokens=6, min_new_tokens=6)
        for m in (model("bigchem"), model("eager"))
    ]
    assert torch.equal(*made)
    assert used == {"encoder_self": SHAPE.num_layers}


def test_what_does_not_fit_is_left_to_sdpa(used: Counter[str]) -> None:
    in_transformers.register()  # on a CPU `auto` chooses torch: sdpa is that already
    left = torch.tensor([[0, 0, 5, 6, 1], [7, 7, 7, 7, 1]])
    for backend in ("auto", "torch"):
        in_transformers.register(backend)
        ours, theirs = (m.eval()(input_ids=left, attention_mask=(left != 0).long(), labels=LABELS[:2]).loss
                        for m in (model("bigchem"), model("eager")))  # fmt: skip
        torch.testing.assert_close(ours, theirs)
        assert used["encoder_self"] == used["cross"] == 0
