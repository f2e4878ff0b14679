"""score_task: the right metrics for each task, n/a with a remedy, intervals, several cores."""

import sys
from dataclasses import replace

import pytest

from bigchem.base.errors import UserError
from bigchem.base.installed.packages import install_extra
from bigchem.evaluate.metrics import pool
from bigchem.evaluate.protocol.definitions import DEFINITIONS, FAMILIES, HIGHER_IS_BETTER, check_metrics, metrics_of
from bigchem.evaluate.protocol.score_task import SEVERAL, Score, score_task
from bigchem.tasks import Task, TaskConfig, shipped

CAPTIONS = ["The molecule is an alcohol.", "It is a conjugate base of an acid and a salt."]
SMILES = ["CCO", "CC(=O)[O-].[Na+]", "c1ccccc1O", "CN"]


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without SciBERT, WordNet and fcd."""
    monkeypatch.setattr("bigchem.evaluate.metrics.text.find_scibert", lambda: None)
    monkeypatch.setattr("bigchem.evaluate.metrics.text.find_wordnet", lambda: None)
    monkeypatch.setattr("bigchem.evaluate.metrics.bertscore.find_roberta", lambda: None)
    monkeypatch.setitem(sys.modules, "fcd", None)


def score(task, references, predictions, **options):
    ranked = [one if isinstance(one, list) else [one] for one in predictions]
    scores = score_task(shipped()[task], [""] * len(references), references, ranked, **options)
    assert all(one.task == task and one.definition in DEFINITIONS for one in scores)
    return {one.metric: one for one in scores}


def values(scores):
    return {name: one.value for name, one in scores.items()}


def test_every_task_has_its_headline_metric_and_every_metric_a_direction():
    for task in shipped().scored.values():
        names = [metric.name for metric in metrics_of(task)]
        assert task.headline in names
        assert len(names) == len(set(names))
        assert set(names) <= set(HIGHER_IS_BETTER)
    assert {name for name, higher in HIGHER_IS_BETTER.items() if not higher} == {
        *("levenshtein", "fcd", "invalid", "hallucinated_groups", "hallucinated_share", "mae", "rmse")
    }


def test_a_headline_that_is_no_metric_of_the_task_is_refused_before_its_data_are_built():
    record = {"source": "chemistry", "target": "number", "metrics": ["mae"]}
    for headline, refused in (("mae", False), ("loss", False), ("rmse", True), ("maee", True)):
        tasks = [Task.of("solubility", TaskConfig.model_validate({**record, "headline": headline}))]
        if not refused:
            check_metrics(tasks)
            continue
        with pytest.raises(UserError, match=rf"tasks\.solubility\.headline: unknown metric of the task '{headline}'"):
            check_metrics(tasks)


def test_definition_ids_mean_one_thing():
    meanings = {(metric.definition, metric.meaning) for metrics in FAMILIES.values() for metric in metrics}
    assert len(meanings) == len(DEFINITIONS)


def test_captioning_without_vocabularies_still_has_numbers(bare):
    scores = score("captioning", CAPTIONS, CAPTIONS)
    missing = {"bleu2", "bleu4", "meteor", "bertscore", "hallucinated_share", "text2mol"}
    assert {name for name, one in scores.items() if one.value is None} == missing
    assert all(scores[name].value == pytest.approx(1) for name in ("rouge1", "rouge2", "rougeL", "bleu2_words"))
    assert scores["bleu4"].note.startswith("needs SciBERT's vocabulary: set BIGCHEM_SCIBERT")
    assert "NLTK_DATA" in scores["meteor"].note
    assert scores["bleu4"].n == 0


def test_generation_by_hand(bare):
    scores = score("generation", ["CCO", "CCO", "CCO", "CCO"], ["OCC", "CCO", "CC", "C("])
    assert scores["fcd"].value is None
    assert scores["fcd"].note == f"needs the optional package fcd: {install_extra('fcd')}"
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


def test_a_list_that_ends_early_has_no_further_hits_and_is_counted():
    ranked = [["CC", "OCC", "C"], ["CN"], ["C", "N"]]
    scores = score("forward", ["CCO", "CN", "CO"], ranked)
    found = values(scores)
    for kind in ("", "_nostereo"):
        assert [found[f"top{k}{kind}"] for k in (1, 2, 3, 5)] == [1 / 3, 2 / 3, 2 / 3, None]
    assert scores["top1"].note == ""
    assert scores["top2"].note == "lists of fewer than 2 predictions: 1 of 3"
    assert scores["top3"].note == "lists of fewer than 3 predictions: 2 of 3"
    assert scores["top5"].note == scores["top50"].note == "the longest list has 3 predictions"


def test_no_metric_vanishes(bare):
    for task in shipped().scored.values():
        scores = score(task.name, ["CCO"], ["CC"])
        assert list(scores) == [metric.name for metric in metrics_of(task)]
        assert all(one.note for one in scores.values() if one.value is None)


def test_retrosynthesis_is_forward_and_a_round_trip_that_needs_a_model():
    scores = score("retrosynthesis", ["CCO.CN"], ["NC.OCC"])
    forward = score("forward", ["CCO.CN"], ["NC.OCC"])
    trips = {f"round_trip{name}": None for name in ("", "_nostereo", "_all", "_coverage", "_diversity")}
    assert values(scores) == {**values(forward), **trips}
    assert scores["round_trip"].note.startswith("needs a forward model: add --forward-model MODEL")


def test_a_round_trip_is_back_at_the_product():
    """The prediction may differ from the reference, and the product may be spelled differently."""
    products = ["C[C@H](N)O", "CCO", "CCO", "C1CC1"]
    made = [["C[C@@H](N)O"], ["OCC"], ["C("], ["C1CC1C"]]
    scores = score_task(shipped()["retrosynthesis"], products, ["C"] * 4, [["N"]] * 4, products=made)
    found = {one.metric: one.value for one in scores}
    assert (found["top1"], found["round_trip"], found["round_trip_nostereo"]) == (0, 0.25, 0.5)
    with pytest.raises(ValueError, match="one length"):
        score_task(shipped()["retrosynthesis"], products, ["C"] * 4, [["N"]] * 4, products=[["C"]])


def test_round_trips_of_all_predictions():
    products, ranked = ["CCO", "CN", "CC"], [["C.N", "N.C", "O", "F"], ["C", "N"], ["Cl"]]
    made = [["CCO", "OCC", "CCO", "C("], ["C", "NC"], ["C"]]
    scores = score_task(shipped()["retrosynthesis"], products, ["C"] * 3, ranked, products=made)
    found = {one.metric: one for one in scores}
    assert found["round_trip"].value == 1 / 3
    assert found["round_trip_coverage"].value == 2 / 3
    assert found["round_trip_all"].value == pytest.approx((3 / 4 + 1 / 2) / 3)
    assert found["round_trip_diversity"].value == pytest.approx((2 / 4 + 1 / 2) / 3)  # C.N is N.C
    of_the_best = score_task(
        shipped()["retrosynthesis"], products, ["C"] * 3, ranked, products=[one[:1] for one in made]
    )
    found = {one.metric: one for one in of_the_best}
    assert (found["round_trip"].value, found["round_trip_coverage"].value) == (1 / 3, None)
    assert "--forward-model" in found["round_trip_coverage"].note


def test_reactions_have_similarities_and_inchi_matches():
    references = ["CCO.CN", "[CH3:1][OH:2]", "Oc1ccccn1", "CC~[Na+]"]
    predictions = ["NC.OCC", "CO", "O=c1cccc[nH]1", "C("]
    scores = score("forward", references, predictions, similarity=True)
    assert (scores["top1"].value, scores["exact"].value) == (0.5, 0.75)  # tautomers have one InChI
    assert (scores["maccs"].n, scores["exact"].n, scores["bleu"].n) == (3, 4, 4)
    assert 2 / 3 < scores["morgan"].value < 1
    assert scores["levenshtein"].value == pytest.approx((4 + 12 + 6 + 7) / 4, abs=1.5)


def test_similarities_of_reactions_are_left_out_unless_asked_for():
    alone, asked = (score("forward", ["CCO", "CO"], ["CCN", "CO"], similarity=similar) for similar in (False, True))
    assert {name for name in alone if alone[name] != asked[name]} == {"maccs", "rdk", "morgan"}
    assert (alone["rdk"].value, alone["rdk"].n) == (None, 0)
    assert "--similarity" in alone["rdk"].note
    assert "similarity = true" in alone["rdk"].note


def test_maxfrag_compares_the_largest_fragments():
    scores = score("retrosynthesis", ["CCOC.Cl", "CCOC.Cl"], [["CCOC.Br", "C"], ["Cl", "COCC"]])
    assert (scores["top1"].value, scores["top1_maxfrag"].value, scores["top3_maxfrag"].value) == (0, 0.5, None)
    three = score("retrosynthesis", ["CCOC.Cl"], [["Cl", "C", "COCC"]])
    assert three["top3_maxfrag"].value == 1


def test_generated_molecules_are_counted_as_new_and_as_different(bare):
    references = ["c1ccccc1O", "C1CC1N", "CCO", "CO", "CN"]
    predictions = ["c1ccccc1N", "C1CCC1N", "OCC", "CCO", "C("]
    scores = score("generation", references, predictions, training=["[CH3]CO", "C(", "OC"])
    assert (scores["scaffold"].value, scores["scaffold"].n) == (0.5, 2)
    assert (scores["uniqueness"].value, scores["uniqueness"].n) == (3 / 4, 4)
    assert (scores["novelty"].value, scores["novelty"].n) == (2 / 4, 4)
    assert score("generation", references, predictions)["novelty"].note.startswith("needs the training set")


def test_groups_that_captions_name_and_molecules_lack_are_counted(bare):
    molecules = ["CC(=O)O", "CCO", "C("]
    captions = ["It is a carboxylic acid and a ketone.", "It is an alcohol.", "It is an ester."]
    scores = {
        s.metric: s for s in score_task(shipped()["captioning"], molecules, captions[::-1], [[one] for one in captions])
    }
    assert (scores["hallucinated_groups"].value, scores["hallucinated_groups"].n) == (0.5, 2)
    assert (scores["hallucinated_share"].value, scores["hallucinated_share"].n) == (0.5, 1)
    assert scores["hallucinated_groups"].note == "of the references themselves: 0.5000"


def test_classes_stand_apart_behind_all():
    references, ranked, classes = ["CCO", "CN", "CO", "C"], [["CCO"], ["C"], ["CO"], ["C"]], ["10", "2", "10", ""]
    scores = score_task(shipped()["forward"], [""] * 4, references, ranked, classes=classes, bootstrap=10)
    top = {one.group: one for one in scores if one.metric == "top1"}
    assert list(top) == ["", "class 2", "class 10"]
    assert {name: (one.value, one.n) for name, one in top.items()} == {
        "": (0.75, 4),
        "class 2": (0.0, 1),
        "class 10": (1.0, 2),
    }
    alone = score_task(shipped()["forward"], [""] * 2, references[::2], ranked[::2], bootstrap=10)
    assert (top["class 10"].low, top["class 10"].high) == (alone[0].low, alone[0].high)
    assert "class 2" not in {one.group for one in scores if one.metric == "levenshtein"}


def test_few_examples_have_no_bootstrap_and_shares_have_wilsons():
    few, enough = (score("forward", ["CCO"] * n, ["CCC"] * n, similarity=True, bootstrap=50) for n in (9, 10))
    assert (few["morgan"].low, few["morgan"].interval) == (None, "too few")
    assert (few["top1"].low, few["top1"].interval) == (0.0, "Wilson")
    assert few["top1"].high == pytest.approx(0.2991, abs=1e-4)
    assert enough["morgan"].interval == "Wilson"  # all equal: a bootstrap interval would have no width
    assert enough["morgan"].low < enough["morgan"].value < enough["morgan"].high


def test_invalid_counts_all_of_the_list():
    assert values(score("forward", ["C", "C"], [["C", "C("], ["", "N"]]))["invalid"] == 0.5
    assert values(score("forward", ["C", "C"], [["C", "C("], ["N", "N"]]))["invalid"] == 0.25


def test_references_that_do_not_parse_are_told():
    scores = score("forward", ["CCO", "C("], ["CCO", "C("])
    assert scores["top1"].value == 0.5
    assert scores["top1"].note == "1 reference does not parse and counts as a miss"
    assert scores["validity"].note == ""


def test_actions_by_hand():
    scores = values(score("actions", ["abcdefghij", "abcd efgh", "ab"], ["abcdefghiX", "abcd efgh", "cd"]))
    scores = {name: value for name, value in scores.items() if value is not None}
    assert scores == pytest.approx(
        # 2 of 4 tokens; 1 of 3 bigrams, as nltk counts at least one for every text
        {"bleu2": (2 / 4 * 1 / 3) ** 0.5, "exact": 1 / 3, "lev90": 2 / 3, "lev75": 2 / 3, "lev50": 2 / 3}
        | {"precision": 1 / 3, "recall": 1 / 3}
        # of 12 tokens, two words and 8 padding ones match; likewise 7 of 9, 4 of 6 and 1 of 3 n-grams
        | {"bleu_modified": (10 / 12 * 7 / 9 * 4 / 6 * 1 / 3) ** 0.25}
    )


def test_precision_and_recall_of_each_kind_of_action():
    references = ["ADD water; STIR for 1 h; ADD acid.", "WASH; YIELD a salt."]
    predictions = ["STIR for 2 h; ADD water.", "WASH; WASH; DRY."]
    scores = score("actions", references, predictions)
    asked = ("", "_ADD", "_STIR", "_WASH", "_DRY", "_YIELD")
    found = {f"{name}{kind}": scores[f"{name}{kind}"].value for kind in asked for name in ("precision", "recall")}
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
    assert scores["precision_COOL"].note == "no prediction has this action"
    assert scores["recall_COOL"].note == "no reference has this action"


def test_intervals_hold_the_value_and_repeat():
    references = SMILES * 30
    predictions = [one if i % 3 else "CCCO" for i, one in enumerate(references)]
    how = {"similarity": True, "bootstrap": 200}
    scores = score("forward", references, predictions, **how, seed=4)
    top = scores["top1"]
    assert 0.5 < top.low < top.value < top.high < 0.8
    assert scores == score("forward", references, predictions, **how, seed=4)
    again = score("forward", references, predictions, **how, seed=5)
    assert scores["top1"] == again["top1"]
    assert scores["morgan"] != again["morgan"]
    assert score("forward", references, predictions)["top1"].low is None


def test_several_cores_give_the_same_scores(bare, monkeypatch):
    references, predictions = SMILES * 3, [*SMILES[::-1], "", "C("] * 2
    alone = score("generation", references, predictions, bootstrap=20)
    monkeypatch.setattr(pool, "SMALL", 1)
    assert score("generation", references, predictions, bootstrap=20, workers=2) == alone


def test_wrong_arguments_are_refused():
    with pytest.raises(UserError, match="did you mean 'forward'"):
        shipped().labelled("foward")
    with pytest.raises(UserError, match=r"tasks\.forward\.metrics: unknown metric 'top11'"):
        score_task(replace(shipped()["forward"], metrics=("top11",)), ["C"], ["C"], [["C"]])
    for lists in ((["C"], ["C"], [[]]), (["C"], ["C", "C"], [["C"]]), ([], [], [])):
        with pytest.raises(ValueError, match="one length"):
            score_task(shipped()["forward"], *lists)


def by_name(scores: list[Score]) -> dict[str, Score]:
    return {score.metric: score for score in scores}


def test_any_of_several_references_is_right() -> None:
    targets = [["CCO", "CCN"], ["CC"], ["CN", "C[NH2+]C"]]
    found = by_name(score_task(shipped()["forward"], ["C"] * 3, targets, [["NCC", "C"], ["CO", "CC"], ["C", "O"]]))
    assert (found["top1"].value, found["top2"].value) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert found["top1"].note.endswith(SEVERAL)
    found = by_name(score_task(shipped()["generation"], ["x"] * 3, targets, [["OCC"], ["CC"], ["CNC"]]))
    assert found["exact"].value == pytest.approx(2 / 3)
    assert found["levenshtein"].value == pytest.approx((2 + 0 + 1) / 3)
    assert found["fcd"].value is None
    assert found["fcd"].note == "not defined for several references of an example"


def test_text_metrics_take_the_best_of_several_references_and_bleu_their_n_grams() -> None:
    from nltk.translate.bleu_score import corpus_bleu

    targets = [["stir it for one hour", "wait for an hour now please"], ["filter it off"]]
    made = [["stir for an hour now please ok"], ["filter all of it off"]]
    found = by_name(score_task(shipped()["captioning"], ["C"] * 2, targets, made))
    split = [[one.split() for one in several] for several in targets]
    expected = corpus_bleu(split, [one.split() for (one,) in made], weights=(0.5, 0.5))
    assert found["bleu2_words"].value == pytest.approx(expected)
    each = [by_name(score_task(shipped()["captioning"], ["C"], [one], made[:1]))["rouge1"].value for one in targets[0]]
    second = by_name(score_task(shipped()["captioning"], ["C"], ["filter it off"], made[1:]))["rouge1"].value
    assert found["rouge1"].value == pytest.approx((max(each) + second) / 2)
    actions = by_name(score_task(shipped()["actions"], ["x"], [["STIR.", "WAIT."]], [["WAIT."]]))
    assert (actions["exact"].value, actions["lev90"].value, actions["precision"].value) == (1, 1, None)


def test_one_reference_in_a_list_scores_as_the_reference_itself() -> None:
    for task, reference, made in (("forward", "CCO", "OCC"), ("captioning", "an alcohol", "an acid")):
        plain = score_task(shipped()[task], ["C"] * 2, [reference] * 2, [[made]] * 2)
        assert score_task(shipped()[task], ["C"] * 2, [[reference]] * 2, [[made]] * 2) == plain
