"""Scores of a file of predictions, and how they are shown."""

import io
import json

import pytest
from made_predictions import ROW, written
from rich.console import Console

from bigchem.base.errors import UserError
from bigchem.evaluate.compare import compare_files
from bigchem.evaluate.prediction_files.tables import ReadAs, read_examples
from bigchem.evaluate.protocol.score_task import Score
from bigchem.evaluate.score import score_file
from bigchem.evaluate.score_tables import class_table, markdown, table, to_json
from bigchem.tasks import Task, TaskConfig, shipped


def test_several_candidates_in_one_column_are_split_where_asked_and_refused_where_not(tmp_path):
    path = written(tmp_path, "p.csv", "source,target,output\nx,CCO,CC;CCO\ny,CC,C ; CC\n")
    scores = {score.metric: score.value for score in score_file(shipped()["forward"], path, ReadAs(separator=";"))}
    assert (scores["top1"], scores["top2"]) == (0, 1)
    with pytest.raises(UserError, match=r"2 of 2 predictions contain ';'.*\nnext: --separator ';'"):
        score_file(shipped()["forward"], path)
    assert score_file(shipped()["forward"], path, ReadAs(separator="none"))[0].value == 0
    lists = written(tmp_path, "q.csv", """source,target,predictions\nx,CCO,"['CC', 'CCO']"\ny,CC,"[""C"", ""CC""]"\n""")
    assert read_examples(lists).predictions == [["CC", "CCO"], ["C", "CC"]]


def test_null_predictions_are_counted_and_wrong(tmp_path, capsys):
    rows = [{"source": "s", "target": "CC", "prediction": one} for one in (None, "", "CC")]
    rows += [{"source": "s", "target": "CC", "predictions": []}, {"source": "s", "target": "CC", "predictions": [None]}]
    path = written(tmp_path, "p.json", json.dumps(rows))
    assert next(score.value for score in score_file(shipped()["forward"], path) if score.metric == "top1") == 0.2
    assert "p.json: 4 null or empty predictions, counted as wrong" in capsys.readouterr().err


@pytest.mark.parametrize("null", ["nan", "None", "", " ", "NULL", "<NA>", "n/a", "#N/A"])
def test_null_texts_of_a_table_are_counted_and_null_references_refused(tmp_path, null):
    read = read_examples(written(tmp_path, "p.csv", f"source,target,prediction\nC,an alkane,{null}\nC,a gas,a gas\n"))
    assert read.predictions == [[""], ["a gas"]]
    assert read.counts == {"null or empty prediction, counted as wrong": 1}
    path = written(tmp_path, "p.csv", f"source,target,prediction\nC,a gas,a gas\nC,{null},a gas\n")
    with pytest.raises(UserError, match=r"p\.csv:3: the target is .*\nnext: remove the example") as refused:
        score_file(shipped()["captioning"], path)
    assert "null or empty" in refused.value.what or repr(null) in refused.value.what
    path = written(tmp_path, "p.csv", f"source,target_1,target_2,output\nx,CCO,{null},CCO\ny,C,CC,CC\n")
    read = read_examples(path, ReadAs(columns={"target": "target_*"}))
    assert (read.references, read.counts) == ([["CCO"], ["C", "CC"]], {"null or empty reference, left out": 1})


@pytest.mark.parametrize("label", ["none", "None", "NULL", "NA", "n/a"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.csv", "source,target,prediction\nC,{0},{0}\nCC,yes,{0}\n"),
        ("p.tsv", "source\ttarget\tprediction_0\tprediction_1\nC\t['{0}']\t{0}\tyes\nCC\tyes\t{0}\tyes\n"),
        ("p.jsonl", '{{"source": "C", "target": "{0}", "predictions": ["{0}"]}}\n'
                    '{{"source": "CC", "target": "yes", "predictions": ["{0}"]}}\n'),
    ],
)  # fmt: skip
def test_a_label_is_not_null_however_it_is_called(tmp_path, name, content, label):
    record = {"source": "chemistry", "target": "label", "labels": [label, "yes"]}
    task = Task.of("odour", TaskConfig.model_validate(record))
    path = written(tmp_path, name, content.format(label))
    scores = {score.metric: score for score in score_file(task, path)}
    assert (scores["accuracy"].value, scores["accuracy"].n, scores["valid_labels"].value) == (0.5, 2, 1.0)
    assert "reading" not in scores
    with pytest.raises(UserError, match="the target is"):
        score_file(shipped()["captioning"], path)


def test_score_file_reads_and_scores(tmp_path):
    path = written(tmp_path, "p.csv", "source,target,output\nx,CCO,OCC\ny,CC,C\n")
    scores = {score.metric: score for score in score_file(shipped()["forward"], path, bootstrap=50)}
    assert scores["top1"].value == 0.5
    assert scores["top1"].low is not None


def test_a_file_of_another_task_is_refused(tmp_path):
    captions = written(tmp_path, "captions.txt", "SMILES\tground truth\toutput\nCC\tan alkane\ta gas\n")
    with pytest.raises(
        UserError, match=r"captions\.txt: no molecule among the first 1 target; .* 'an alkane'"
    ) as refused:
        score_file(shipped()["generation"], captions)
    assert refused.value.hint == "is this a file of generation?"
    with pytest.raises(UserError, match="no molecule among the first 1 target;"):
        compare_files(shipped()["forward"], captions, captions)
    molecules = written(tmp_path, "molecules.txt", "description\tground truth\toutput\nan alkane\tCC\tC(\n")
    with pytest.raises(UserError, match="unknown task 'captions'"):
        shipped().labelled("captions")
    assert score_file(shipped()["generation"], molecules)  # an invalid prediction does not make the file invalid


def test_table_and_json_show_every_score():
    scores = [
        Score("generation", "exact", 0.25, 0.125, 0.5, 8, "exact/inchi-v2"),
        Score("generation", "fcd", None, None, None, 0, "fcd/x", "pip install 'fcd>=1.2.2'"),
    ]
    out = io.StringIO()
    Console(width=200, file=out).print(table(scores))
    shown = out.getvalue()
    assert "0.2500" in shown
    assert "0.1250 .. 0.5000" in shown
    assert "n/a" in shown
    assert "pip install 'fcd>=1.2.2'" in shown
    assert json.loads(json.dumps(to_json(scores)))[1] == {
        "task": "generation",
        "metric": "fcd",
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "definition": "fcd/x",
        "note": "pip install 'fcd>=1.2.2'",
        "interval": "",
        "group": "",
        "higher_is_better": None,
    }


@pytest.mark.parametrize("predicted", ["C C O\nC N\nC O\nC C\n", "CCO\tCN\nCO\tCC\n"])
def test_predictions_alone_belong_to_lines_of_other_files(tmp_path, predicted):
    for name, text in (("src", "C . O\nC\n"), ("tgt", "C C O\nC C\n"), ("pred", predicted)):
        (tmp_path / f"{name}.txt").write_text(text)
    how = ReadAs(sources=tmp_path / "src.txt", references=tmp_path / "tgt.txt")
    scores = {score.metric: score.value for score in score_file(shipped()["forward"], tmp_path / "pred.txt", how)}
    assert (scores["top1"], scores["top2"]) == (0.5, 1)


@pytest.mark.parametrize(
    ("target", "predicted", "message"),
    [
        ("C\n", "C\nC\n", "1 line, but 2 in"),
        ("C\nC\n", "C\nC\nC\n", "3 lines for 2 sources"),
        ("C\nC\n", "", "0 lines"),
    ],
)
def test_files_of_other_lengths_are_refused(tmp_path, target, predicted, message):
    for name, text in (("src", "C\nC\n"), ("tgt", target), ("pred", predicted)):
        (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        score_file(
            shipped()["forward"],
            tmp_path / "pred.txt",
            ReadAs(sources=tmp_path / "src.txt", references=tmp_path / "tgt.txt"),
        )
    with pytest.raises(UserError, match="go together"):
        score_file(shipped()["forward"], tmp_path / "pred.txt", ReadAs(sources=tmp_path / "src.txt"))


def test_metrics_that_are_missing_for_one_reason_share_a_row_that_names_them():
    scores = [
        Score("forward", "top1", 0.25, 0.125, 0.5, 8, "top1/x", interval="Wilson"),
        *(
            Score("forward", f"top{k}", None, None, None, 0, f"top{k}/x", "the longest list has 1 prediction")
            for k in (2, 3)
        ),
        Score("forward", "maccs", -1e-6, None, None, 3, "maccs/x", interval="too few"),
        Score("forward", "fcd", None, None, None, 0, "fcd/x", "needs a|b"),
        Score("forward", "top1", 1.0, 0.3, 1.0, 2, "top1/x", group="class 7"),
    ]
    lines = markdown(scores).splitlines()
    assert lines[2:] == [
        "| forward | top1 | 0.2500 | 0.1250 .. 0.5000 | 8 | top1/x |  |",
        "| forward | 2 metrics | n/a |  | 0 |  | the longest list has 1 prediction: top2, top3 |",
        "| forward | maccs | 0.0000 | too few | 3 | maccs/x |  |",
        r"| forward | fcd | n/a |  | 0 | fcd/x | needs a\|b |",
    ]
    out = io.StringIO()
    Console(width=200, file=out).print(class_table(scores))
    assert "1.000 (0.3000 .. 1.0000), 2" in out.getvalue()
    assert class_table(scores[:-1]) is None


def test_the_loss_is_the_ratio_of_its_sums_over_the_examples(tmp_path):
    lines = [json.dumps({**ROW, "loss_and_tokens": [1.5 * n, n]}) for n in range(1, 12)]
    lines.append(json.dumps({**ROW, "loss_and_tokens": [30, 4]}))
    loss = score_file(shipped()["actions"], written(tmp_path, "p.jsonl", "\n".join(lines)), bootstrap=100)[0]
    assert (loss.metric, loss.value, loss.n) == ("loss", (1.5 * 66 + 30) / 70, 12)
    assert 1.5 <= loss.low < loss.value < loss.high
    assert (loss.interval, loss.higher_is_better) == ("bootstrap", False)


@pytest.mark.parametrize("numbers", [[1.5], [1.5, 0], [1.5, 2.5], [1.5, 2, 3]])
def test_a_loss_without_its_number_of_tokens_is_refused(tmp_path, numbers):
    with pytest.raises(UserError, match="example 1: loss_and_tokens is"):
        score_file(shipped()["actions"], written(tmp_path, "p.jsonl", json.dumps({**ROW, "loss_and_tokens": numbers})))
