"""Published numbers beside the user's own, under the protocol's metric names: as printed, and re-scored."""

import json

import pytest
from real_files import REAL_DATA

from bigchem.evaluate.protocol.definitions import metrics_of
from bigchem.evaluate.protocol.score_task import Score, score_task
from bigchem.evaluate.published import comparison_tables, published
from bigchem.tasks import shipped

RESCORED = REAL_DATA.parent / "published" / "rescored.json"


def rows(task, origin):
    return {row.model: row.values for row in published()[task] if row.origin == origin}


def test_published_numbers_are_of_metrics_of_the_protocol():
    for task, found in published().items():
        assert {metric for row in found for metric in row.values} <= {
            metric.name for metric in metrics_of(shipped()[task])
        }
        assert len({row.label for row in found}) == len(found)


def test_printed_and_rescored_rows_of_a_model_stand_together():
    assert rows("generation", "printed")["MolT5-large"]["maccs"] == 0.834
    assert rows("generation", "rescored")["MolT5-large"]["maccs"] == pytest.approx(0.8894, abs=1e-4)
    labels = [row.label for row in published()["generation"]]
    place = labels.index("MolT5-large, as printed")
    assert labels[place + 1] == "MolT5-large, released predictions, re-scored"
    assert len(rows("captioning", "rescored")) + len(rows("generation", "rescored")) == 16


@pytest.mark.data
@pytest.mark.skipif(not RESCORED.is_file(), reason="no published predictions")
def test_rescored_rows_are_what_molt5s_scripts_gave():
    given = json.loads(RESCORED.read_text())["scores"]
    table = json.loads(RESCORED.with_name("rescored.json").read_text())
    assert table["scores"] == given
    found = sorted(tuple(values.values()) for task in published() for values in rows(task, "rescored").values())
    assert found == sorted(tuple(values.values()) for values in given.values())


def test_ones_own_row_is_the_last_of_each_table():
    scores = [
        Score("captioning", "rouge1", 0.51234, 0.4, 0.6, 12, "x"),
        Score("captioning", "bleu2", None, None, None, 0, "x"),
        Score("captioning", "rouge1", 0.9, None, None, 1, "x", group="class 1"),
    ]
    lines = comparison_tables(scores, "mine").splitlines()
    assert lines[2].startswith("| model | n | bleu2 | bleu4 | rouge1 |")
    assert "| T5-base, as printed | 3,300 | 0.511 | 0.423 | 0.607 | 0.451 | 0.550 | 0.539 |" in lines
    assert lines[-3] == "| **mine** | 12 | - | - | 0.512 | - | - | - |"
    assert "3,300 examples, here 12" in lines[-1]


@pytest.mark.parametrize("task", ["captioning", "generation"])
def test_a_task_without_a_published_metric_has_no_table(task):
    assert comparison_tables([Score(task, "bertscore", 0.5, None, None, 12, "x")], "mine") == ""


def test_a_name_with_a_bar_stays_in_its_cell():
    lines = comparison_tables([Score("captioning", "rouge1", 0.5, None, None, 12, "x")], "a|b").splitlines()
    assert lines[-3].startswith("| **a\\|b** | 12 |")


def test_other_tasks_have_no_table():
    assert comparison_tables(score_task(shipped()["forward"], ["C"], ["C"], [["C"]]), "mine") == ""
