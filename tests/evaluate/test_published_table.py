"""Published numbers stand beside one's own, in the protocol's names."""

from bigchem.evaluate.definitions import PROTOCOL
from bigchem.evaluate.protocol import Score, score_task
from bigchem.evaluate.published import PUBLISHED, beside


def test_published_numbers_are_of_metrics_of_the_protocol_and_complete():
    for task, (metrics, models) in PUBLISHED.items():
        assert set(metrics) <= {metric.name for metric in PROTOCOL[task]}
        assert {len(values) for values in models.values()} == {len(metrics)}


def test_ones_own_row_is_the_last_of_each_table():
    scores = [
        Score("captioning", "rouge1", 0.51234, 0.4, 0.6, 12, "x"),
        Score("captioning", "bleu2", None, None, None, 0, "x"),
    ]
    lines = beside(scores, "mine").splitlines()
    assert lines[2].startswith("| model | bleu2 | bleu4 | rouge1 |")
    assert lines[4] == "| T5-base | 0.511 | 0.423 | 0.607 | 0.451 | 0.550 | 0.539 |"
    assert lines[-3] == "| **mine** | - | - | 0.512 | - | - | - |"
    assert "3,300 examples, here 12" in lines[-1]


def test_other_tasks_have_no_table():
    assert beside(score_task("forward", ["C"], ["C"], [["C"]]), "mine") == ""
