"""Every metric against its library's direct call on random inputs, and pathological inputs for every task."""

from __future__ import annotations

import json
import random
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.metrics.distance import edit_distance
from nltk.translate.bleu_score import corpus_bleu
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import MACCSkeys, rdFingerprintGenerator
from rouge_score.rouge_scorer import RougeScorer

from bigchem.data.storage.shards import Data
from bigchem.evaluate.metrics import actions, molecules, reactions, text
from bigchem.evaluate.protocol.score_task import score_task
from bigchem.tasks import shipped

TEXTS = st.text(alphabet="abAB éµ-\t.,()\n\u2028", max_size=30)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_rouge_is_rouge_scores(pairs: list[tuple[str, str]]) -> None:
    references, predictions = (list(side) for side in zip(*pairs, strict=True))
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    expected = [[one.fmeasure for one in scorer.score(*pair).values()] for pair in pairs]
    assert text.rouge(references, predictions).tolist() == pytest.approx(np.array(expected))


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_distances_and_similarities_are_nltks(pairs: list[tuple[str, str]]) -> None:
    references, predictions = (list(side) for side in zip(*pairs, strict=True))
    assert molecules.levenshtein(references, predictions).tolist() == [edit_distance(*pair) for pair in pairs]
    stripped = [(reference.strip(), prediction.strip()) for reference, prediction in pairs]
    distances, longest = [edit_distance(*pair) for pair in stripped], [max(map(len, pair)) for pair in stripped]
    expected = [1 - d / n if n else 1.0 for d, n in zip(distances, longest, strict=True)]
    assert actions.similarity(references, predictions) == pytest.approx(np.array(expected))


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=5))
def test_bleu_of_characters_and_of_actions_is_nltks(pairs: list[tuple[str, str]]) -> None:
    references, predictions = (list(side) for side in zip(*pairs, strict=True))
    for task, metric, weights, split in (
        ("generation", "bleu", (0.25,) * 4, list),
        ("actions", "bleu2", (0.5, 0.5), str.split),
        ("actions", "bleu_modified", (0.25,) * 4, actions.padded),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = corpus_bleu([[split(r)] for r in references], [split(p) for p in predictions], weights)
        scores = score_task(shipped()[task], references, references, [[one] for one in predictions])
        assert next(s.value for s in scores if s.metric == metric) == pytest.approx(expected, abs=1e-9)


@pytest.fixture(scope="module")
def smiles(small_data: Path) -> list[str]:
    """Molecules of the corpus, respelled, truncated and mutated at random; some twice, some with an unknown atom."""
    rng, rows = random.Random(0), Data(small_data).split("train", "captioning")
    found = [rows.text(row)[1] for row in range(60)]
    found += [one[: rng.randrange(1, len(one))] for one in found[:30]] + [f"*{one}" for one in found[:10]]
    found += [Chem.MolToSmiles(Chem.MolFromSmiles(one), doRandom=True) for one in found[:20]] + ["", "*", "[Na+]", "O"]
    rng.shuffle(found)
    return found


def test_molecules_compare_as_rdkits_direct_calls_do(smiles: list[str]) -> None:
    pairs = [*pairwise(smiles), *((one, one) for one in smiles[:20])]
    found = molecules.compare(*(list(side) for side in zip(*pairs, strict=True)))
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=2).GetSparseCountFingerprint
    for row, pair in zip(found, pairs, strict=True):
        with rdBase.BlockLogs():
            first, second = (Chem.MolFromSmiles(one) if one else None for one in pair)
            assert row[:2].tolist() == [first is not None, second is not None]
            if first is None or second is None:
                assert np.isnan(row[5:]).all()
                continue
            names = [Chem.MolToInchi(one) or Chem.MolToSmiles(one) for one in (first, second)]
        assert row[2] == (names[0] == names[1])
        kinds = (MACCSkeys.GenMACCSKeys, Chem.RDKFingerprint, morgan)
        assert row[5:].tolist() == [DataStructs.TanimotoSimilarity(kind(first), kind(second)) for kind in kinds]


def test_ranks_are_places_of_rdkits_canonical_smiles(smiles: list[str]) -> None:
    def canonical(one: str) -> str | None:
        with rdBase.BlockLogs():
            molecule = Chem.MolFromSmiles(one) if one else None
        return None if molecule is None else Chem.MolToSmiles(molecule)

    rng = random.Random(1)
    for reference in filter(canonical, smiles):
        listed = rng.choices([*smiles, reference], k=6)
        places = [place for place, one in enumerate(listed) if canonical(one) == canonical(reference)]
        row = dict(zip(reactions.COLUMNS, reactions.ranks([reference], [listed])[0], strict=True))
        assert row["rank"] == (places[0] if places else np.inf)
        assert row["invalid"] == [canonical(one) for one in listed].count(None) / 6


NASTY = ["", " ", "\t", "C(", "*", "*C*", "C" * 3000, "(" * 3000, "日本語 µ ∂\u2028", "\x00", "[", "%", "C~C", '"']


@pytest.mark.parametrize("task", shipped().scored)
def test_every_task_has_a_result_for_what_nobody_hopes_for(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcd", None)  # its network takes seconds
    for references in (["CCO. STIR"] * len(NASTY), NASTY, NASTY[::-1]):
        scores = score_task(
            shipped()[task],
            NASTY,
            references,
            [[one, one] for one in NASTY],
            products=[[one, one] for one in NASTY],
            similarity=True,
            bootstrap=5,
        )
        json.loads(json.dumps([one.value for one in scores], allow_nan=False))
        for one in scores:
            assert one.value is not None or one.note
            assert one.low is None or one.low <= one.high  # type: ignore[operator]
        with pytest.raises(ValueError, match="one length"):
            score_task(shipped()[task], NASTY, references[1:], [[one] for one in NASTY])
