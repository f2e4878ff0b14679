"""score_task: the right metrics for each task, n/a with a remedy, intervals, several cores."""

import sys

import pytest

from bigchem.errors import UserError
from bigchem.evaluate import pool
from bigchem.evaluate.protocol import DEFINITIONS, HIGHER_IS_BETTER, PROTOCOL, score_task
from bigchem.tasks import TASKS

CAPTIONS = ["The molecule is an alcohol.", "It is a conjugate base of an acid and a salt."]
SMILES = ["CCO", "CC(=O)[O-].[Na+]", "c1ccccc1O", "CN"]


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without SciBERT, WordNet and fcd."""
    monkeypatch.setattr("bigchem.evaluate.text.find_scibert", lambda: None)
    monkeypatch.setattr("bigchem.evaluate.text.find_wordnet", lambda: None)
    monkeypatch.setitem(sys.modules, "fcd", None)


def score(task, references, predictions, **options):
    ranked = [one if isinstance(one, list) else [one] for one in predictions]
    scores = score_task(task, [""] * len(references), references, ranked, **options)
    assert all(one.task == task and one.definition in DEFINITIONS for one in scores)
    return {one.metric: one for one in scores}


def values(scores):
    return {name: one.value for name, one in scores.items()}


def test_every_task_has_its_headline_metric_and_every_metric_a_direction():
    assert list(PROTOCOL) == list(TASKS)
    for name, task in TASKS.items():
        names = [metric.name for metric in PROTOCOL[name]]
        assert task.headline in names
        assert len(names) == len(set(names))
        assert set(names) <= set(HIGHER_IS_BETTER)
    assert {name for name, higher in HIGHER_IS_BETTER.items() if not higher} == {"levenshtein", "fcd"}


def test_definition_ids_mean_one_thing():
    meanings = {(metric.definition, metric.meaning) for metrics in PROTOCOL.values() for metric in metrics}
    assert len(meanings) == len(DEFINITIONS)


def test_captioning_without_vocabularies_still_has_numbers(bare):
    scores = score("captioning", CAPTIONS, CAPTIONS)
    assert {name for name, one in scores.items() if one.value is None} == {"bleu2", "bleu4", "meteor"}
    assert all(scores[name].value == pytest.approx(1) for name in ("rouge1", "rouge2", "rougeL", "bleu2_words"))
    assert scores["bleu4"].note.startswith("needs SciBERT's vocabulary: set BIGCHEM_SCIBERT")
    assert "NLTK_DATA" in scores["meteor"].note
    assert scores["bleu4"].n == 0


def test_generation_by_hand(bare):
    scores = score("generation", ["CCO", "CCO", "CCO", "CCO"], ["OCC", "CCO", "CC", "C("])
    assert scores["fcd"].value is None
    assert scores["fcd"].note == "needs the optional package fcd: pip install 'bigchem[fcd]'"
    assert scores["exact"].value == 0.5
    assert scores["validity"].value == 0.75
    assert scores["levenshtein"].value == (2 + 0 + 1 + 2) / 4
    assert scores["maccs"].n == scores["rdk"].n == scores["morgan"].n == 3
    assert scores["exact"].n == 4


def test_generation_without_a_single_molecule_says_so(bare):
    scores = score("generation", SMILES, ["("] * 4, bootstrap=10)
    assert scores["morgan"].value is None
    assert scores["morgan"].note == "undefined: no prediction counts"
    assert (scores["exact"].value, scores["validity"].value, scores["bleu"].value) == (0, 0, 0)


def test_top_k_is_scored_for_lists_that_are_long_enough():
    ranked = [["CC", "OCC", "C"], ["CN", "C", "CC"]]
    assert values(score("forward", ["CCO", "CN"], ranked)) == {
        "top1": 0.5,
        "top2": 1.0,
        "top3": 1.0,
        "top1_nostereo": 0.5,
        "validity": 1.0,
    }
    ranked[1].pop()
    assert "top3" not in score("forward", ["CCO", "CN"], ranked)


def test_retrosynthesis_is_forward_and_a_round_trip_that_needs_a_model():
    scores = score("retrosynthesis", ["CCO.CN"], ["NC.OCC"])
    assert values(scores) == {"top1": 1, "top1_nostereo": 1, "validity": 1, "round_trip": None}
    assert scores["round_trip"].note == "needs a forward model's predictions"


def test_references_that_do_not_parse_are_told():
    scores = score("forward", ["CCO", "C("], ["CCO", "C("])
    assert scores["top1"].value == 0.5
    assert scores["top1"].note == "1 references do not parse and count as misses"
    assert scores["validity"].note == ""


def test_actions_by_hand():
    scores = score("actions", ["abcdefghij", "abcd efgh", "ab"], ["abcdefghiX", "abcd efgh", "cd"])
    assert values(scores) == pytest.approx(
        # 2 of 4 tokens; 1 of 3 bigrams, as nltk counts at least one for every text
        {"bleu2": (2 / 4 * 1 / 3) ** 0.5, "exact": 1 / 3, "lev90": 2 / 3, "lev75": 2 / 3, "lev50": 2 / 3}
    )


def test_intervals_hold_the_value_and_repeat():
    references = SMILES * 30
    predictions = [one if i % 3 else "CCCO" for i, one in enumerate(references)]
    scores = score("forward", references, predictions, bootstrap=200, seed=4)
    top = scores["top1"]
    assert 0.5 < top.low < top.value < top.high < 0.8
    assert scores == score("forward", references, predictions, bootstrap=200, seed=4)
    assert scores != score("forward", references, predictions, bootstrap=200, seed=5)
    assert score("forward", references, predictions)["top1"].low is None


def test_several_cores_give_the_same_scores(bare, monkeypatch):
    references, predictions = SMILES * 3, [*SMILES[::-1], "", "C("] * 2
    alone = score("generation", references, predictions, bootstrap=20)
    monkeypatch.setattr(pool, "SMALL", 1)
    assert score("generation", references, predictions, bootstrap=20, workers=2) == alone


def test_wrong_arguments_are_refused():
    with pytest.raises(UserError, match="did you mean 'forward'"):
        score_task("foward", ["C"], ["C"], [["C"]])
    for lists in ((["C"], ["C"], [[]]), (["C"], ["C", "C"], [["C"]]), ([], [], [])):
        with pytest.raises(ValueError, match="one length"):
            score_task("forward", *lists)
