"""BERTScore: n/a without its package or weights; only roberta-large is accepted."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from bigchem.base.errors import UserError
from bigchem.evaluate.metrics import bertscore
from bigchem.evaluate.protocol.pairs import Pairs, UnavailableError

LARGE = {"model_type": "roberta", "num_hidden_layers": 24, "hidden_size": 1024}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "roberta"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LARGE))
    monkeypatch.setenv("BIGCHEM_ROBERTA", str(folder))
    return folder


def test_the_package_gets_the_texts_that_are_not_empty(folder, monkeypatch):
    calls = []

    def score(predictions, references, **options):
        calls.append((predictions, references, options))
        return None, None, torch.tensor([0.5, 0.75])

    monkeypatch.setitem(sys.modules, "bert_score", SimpleNamespace(score=score))
    pairs = Pairs(["C"] * 4, ["a", "b", " ", "d"], [["A"], [""], ["C"], ["D"]])
    assert pairs.bertscore.tolist() == [0.5, 0, 0, 0.75]
    assert calls == [(["A", "D"], ["a", "d"], {"model_type": str(folder), "num_layers": 17, "nthreads": 0})]


def test_without_package_or_weights_it_is_not_available(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bert_score", None)
    pairs = Pairs(["C"], ["a"], [["b"]])
    with pytest.raises(UnavailableError, match="pip install 'bert-score"):
        _ = pairs.bertscore
    monkeypatch.delenv("BIGCHEM_ROBERTA")
    monkeypatch.setattr(bertscore, "_cached", lambda: None)
    with pytest.raises(UnavailableError, match="BIGCHEM_ROBERTA"):
        _ = pairs.bertscore


@pytest.mark.parametrize("content", ["{", "[]", json.dumps(LARGE | {"hidden_size": 768})])
def test_another_model_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"no model here|not roberta-large"):
        bertscore.find_roberta()
