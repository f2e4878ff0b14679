"""Label scores: those of transformers, label by label; whatever the batch."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import T5Config, T5ForConditionalGeneration

from bigchem.base.errors import UserError
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.evaluate.generation import label_scores as scoring
from bigchem.evaluate.generation.generate import load_generator, padded
from bigchem.evaluate.generation.label_scores import label_scores
from bigchem.model.presets import shape, to_hf_config
from bigchem.tasks import Task, TaskConfig

CPU = torch.device("cpu")
LABELS = ("no", "yes", "CC(=O)O", "a longer one: washed with brine", "yes, washed", "n")
NAMES = ("NR-AR", "toxic", "of the liver (C)", "A")


def one(*labels: str) -> Task:
    return Task.of("one", TaskConfig(source="chemistry", target="label", labels=labels))


def several(*names: str) -> Task:
    return Task.of("several", TaskConfig(source="chemistry", target="labels", labels=names))


@pytest.fixture(scope="module")
def tokenizer(small_data: Path) -> Tokenizer:
    return Tokenizer.load(small_data / "tokenizer")


@pytest.fixture(scope="module", params=["tied", "untied"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Any:
    """Random weights, of which attention and outputs are large, so that what a token sees shows."""
    preset = {"tied": "t5-small", "untied": "sweep-0.2m"}[request.param]
    config = {**to_hf_config(shape(preset, tokenizer.vocab_size), 0.0)}
    if request.param == "tied":
        config |= {"d_model": 64, "d_ff": 96, "d_kv": 16, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
    torch.manual_seed(0)
    made = T5ForConditionalGeneration(T5Config(**config))
    for name, weight in made.named_parameters():
        if name.endswith(("relative_attention_bias.weight", "k.weight", "o.weight")):
            weight.data.mul_(3)
    folder = tmp_path_factory.mktemp("model") / request.param
    made.save_pretrained(folder)
    return load_generator(folder, CPU)


def sources(count: int, seed: int = 0, longest: int = 23) -> list[list[int]]:
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=random).tolist()
    return [[*torch.randint(3, 200, (n,), generator=random).tolist(), 1] for n in lengths]


@torch.no_grad()
def teacher_forced(model: Any, source: list[int], target: list[int]) -> list[float]:
    """log P of each token of a target, by transformers' forward of one sequence."""
    logits = model(input_ids=torch.tensor([source]), labels=torch.tensor([target])).logits[0]
    return logits.double().log_softmax(-1)[range(len(target)), target].tolist()


def test_a_labels_score_is_its_teacher_forced_log_probability(model: Any, tokenizer: Tokenizer) -> None:
    given = sources(7)
    found = label_scores(model, tokenizer, one(*LABELS), padded(given, CPU), 8192)
    encoded = tokenizer.encode_batch(LABELS)
    expected = [[sum(teacher_forced(model, source, label)) for label in encoded] for source in given]
    assert len({len(label) for label in encoded}) > 2
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-5)
    assert np.ptp(found, axis=0).min() > 1e-3  # the sources differ


def test_a_names_score_is_the_log_odds_at_the_first_token_that_differs(model: Any, tokenizer: Tokenizer) -> None:
    """The values before are decided one after the other, each the more probable one."""
    given = sources(9, seed=3)
    found = label_scores(model, tokenizer, several(*NAMES), padded(given, CPU), 8192)
    seen = set()
    for source, odds in zip(given, found, strict=True):
        before = ""
        for name, own in zip(NAMES, odds, strict=True):
            end = "" if name == NAMES[-1] else ";"
            no, yes = tokenizer.encode_batch([f"{before}{name}={value}{end}" for value in (0, 1)])
            first = next(n for n, (a, b) in enumerate(zip(no, yes, strict=False)) if a != b)
            expected = teacher_forced(model, source, yes)[first] - teacher_forced(model, source, no)[first]
            assert own == pytest.approx(expected, rel=1e-5, abs=5e-5)
            before += f"{name}={int(own > 0)}; "
        seen.add(before)
    assert len(seen) > 1  # decisions differ between sources


@given(st.lists(st.text("ab-R ()=;é1", min_size=1, max_size=9), min_size=1, max_size=4), st.data())
def test_the_tokens_of_several_labels_are_those_of_each(
    tokenizer: Tokenizer, names: list[str], data: st.DataObject
) -> None:
    parts = [f"{name}={data.draw(st.integers(0, 1))}" for name in names]
    ends = [f"{part};" for part in parts[:-1]] + parts[-1:]
    assert tokenizer.encode_batch(["; ".join(parts)])[0][:-1] == [
        i for ids in tokenizer.encode_batch(ends) for i in ids[:-1]
    ]


def test_probabilities_of_all_short_texts_sum_to_at_most_one(model: Any, tokenizer: Tokenizer) -> None:
    """Of all texts of at most two pieces of a few: distinct token sequences exclude each other."""
    pieces = [tokenizer.decode_batch([[i]])[0] for i in range(20, 60)]
    texts = list(
        dict.fromkeys(text for text in [*pieces, *map("".join, product(pieces[:9], repeat=2))] if text.strip())
    )
    encoded = {tuple(ids): text for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True)}
    found = label_scores(model, tokenizer, one(*encoded.values()), padded(sources(3), CPU), 8192)
    assert found.shape == (3, len(encoded))
    assert len(encoded) > 60
    assert (np.exp(found).sum(axis=1) <= 1 + 1e-6).all()


@pytest.mark.heavy
@given(st.data())
def test_scores_depend_on_neither_batch_nor_padding_nor_limits(
    model: Any, tokenizer: Tokenizer, data: st.DataObject
) -> None:
    task = data.draw(st.sampled_from([one(*LABELS), several(*NAMES)]))
    given = sources(data.draw(st.integers(1, 6)), seed=data.draw(st.integers(0, 99)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "MOST_TOKENS", data.draw(st.sampled_from([1, 9, 256])))
        patch.setattr(scoring, "_LOGITS", data.draw(st.sampled_from([1, 20_000, 1 << 26])))
        together = label_scores(model, tokenizer, task, padded(given, CPU), data.draw(st.sampled_from([1, 60, 8192])))
    wide = torch.nn.functional.pad(padded(given, CPU), (0, data.draw(st.integers(0, 9))))
    np.testing.assert_allclose(together, label_scores(model, tokenizer, task, wide, 8192), rtol=1e-5, atol=1e-4)
    alone = [label_scores(model, tokenizer, task, padded([source], CPU), 8192)[0] for source in given]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-4)


def test_the_order_of_labels_is_that_of_the_columns(model: Any, tokenizer: Tokenizer) -> None:
    ids = padded(sources(4), CPU)
    found = label_scores(model, tokenizer, one(*LABELS), ids, 8192)
    backwards = label_scores(model, tokenizer, one(*reversed(LABELS)), ids, 8192)
    np.testing.assert_allclose(found, backwards[:, ::-1], rtol=1e-5, atol=1e-5)


def test_the_encoder_runs_once_and_the_decoder_once_for_all_labels(
    model: Any, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        forward = getattr(model, name).forward
        monkeypatch.setattr(getattr(model, name), "forward", lambda **given: calls.append(name) or forward(**given))

    counted("encoder")
    counted("decoder")
    label_scores(model, tokenizer, one(*LABELS), padded(sources(9), CPU), 8192)
    assert calls == ["encoder", "decoder"]
    calls.clear()
    label_scores(model, tokenizer, several(*NAMES), padded(sources(9), CPU), 8192)
    assert calls[0] == "encoder"
    assert calls[1:] == ["decoder"] * len(calls[1:])
    assert 2 <= len(calls[1:]) <= 2 * (len(NAMES) + 1)  # of the first source alone, then of all


def test_labels_of_equal_tokens_are_refused(model: Any, tokenizer: Tokenizer) -> None:
    """Characters that the tokenizer does not know are all the same to it."""
    with pytest.raises(UserError, match=r"tasks\.one\.labels: .*the same tokens: 毒, 無"):
        label_scores(model, tokenizer, one("毒", "無"), padded(sources(1), CPU), 8192)
