"""score_task: the right metrics for each task, n/a with a remedy, intervals, several cores."""

import sys

import pytest

from bigchem.errors import UserError
from bigchem.evaluate import pool
from bigchem.evaluate.definitions import DEFINITIONS, HIGHER_IS_BETTER, PROTOCOL
from bigchem.evaluate.protocol import score_task
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
    assert {name for name, higher in HIGHER_IS_BETTER.items() if not higher} == {"levenshtein", "fcd", "invalid"}


def test_definition_ids_mean_one_thing():
    meanings = {(metric.definition, metric.meaning) for metrics in PROTOCOL.values() for metric in metrics}
    assert len(meanings) == len(DEFINITIONS)


def test_captioning_without_vocabularies_still_has_numbers(bare):
    scores = score("captioning", CAPTIONS, CAPTIONS)
    assert {name for name, one in scores.items() if one.value is None} == {"bleu2", "bleu4", "meteor", "text2mol"}
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
        "top2_nostereo": 1.0,
        "top3_nostereo": 1.0,
        "validity": 1.0,
        "invalid": 0.0,
    }
    ranked[1].pop()
    assert "top3" not in score("forward", ["CCO", "CN"], ranked)


def test_retrosynthesis_is_forward_and_a_round_trip_that_needs_a_model():
    scores = score("retrosynthesis", ["CCO.CN"], ["NC.OCC"])
    alike = {"top1": 1, "top1_nostereo": 1, "validity": 1, "invalid": 0}
    assert values(scores) == {**alike, "round_trip": None, "round_trip_nostereo": None}
    assert scores["round_trip"].note.startswith("needs a forward model: add --forward-model MODEL")


def test_a_round_trip_is_back_at_the_product():
    """The prediction need not be the reference, and a product may be spelled otherwise."""
    products = ["C[C@H](N)O", "CCO", "CCO", "C1CC1"]
    made = ["C[C@@H](N)O", "OCC", "C(", "C1CC1C"]
    scores = score_task("retrosynthesis", products, ["C"] * 4, [["N"]] * 4, products=made)
    found = {one.metric: one.value for one in scores}
    assert (found["top1"], found["round_trip"], found["round_trip_nostereo"]) == (0, 0.25, 0.5)
    with pytest.raises(ValueError, match="one length"):
        score_task("retrosynthesis", products, ["C"] * 4, [["N"]] * 4, products=["C"])


def test_invalid_counts_all_of_the_list():
    assert values(score("forward", ["C", "C"], [["C", "C("], ["", "N"]]))["invalid"] == 0.5
    assert values(score("forward", ["C", "C"], [["C", "C("], ["N", "N"]]))["invalid"] == 0.25


def test_references_that_do_not_parse_are_told():
    scores = score("forward", ["CCO", "C("], ["CCO", "C("])
    assert scores["top1"].value == 0.5
    assert scores["top1"].note == "1 references do not parse and count as misses"
    assert scores["validity"].note == ""


def test_actions_by_hand():
    scores = values(score("actions", ["abcdefghij", "abcd efgh", "ab"], ["abcdefghiX", "abcd efgh", "cd"]))
    assert scores == pytest.approx(
        # 2 of 4 tokens; 1 of 3 bigrams, as nltk counts at least one for every text
        {"bleu2": (2 / 4 * 1 / 3) ** 0.5, "exact": 1 / 3, "lev90": 2 / 3, "lev75": 2 / 3, "lev50": 2 / 3}
        | {"precision": 1 / 3, "recall": 1 / 3}
    )


def test_precision_and_recall_of_each_kind_of_action():
    references = ["ADD water; STIR for 1 h; ADD acid.", "WASH; YIELD a salt."]
    predictions = ["STIR for 2 h; ADD water.", "WASH; WASH; DRY."]
    scores = score("actions", references, predictions)
    found = {name: one.value for name, one in scores.items() if name.startswith(("precision", "recall"))}
    assert found == {
        "precision": 2 / 5,  # ADD water, WASH
        "recall": 2 / 5,
        "precision_ADD": 1.0,
        "recall_ADD": 0.5,
        "precision_STIR": 1.0,
        "recall_STIR": 1.0,
        "precision_WASH": 0.5,
        "recall_WASH": 1.0,
        "precision_DRY": 0.0,
        "recall_DRY": None,
        "precision_YIELD": None,
        "recall_YIELD": 0.0,
    }
    assert (scores["precision_WASH"].n, scores["precision_YIELD"].n) == (1, 0)


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
