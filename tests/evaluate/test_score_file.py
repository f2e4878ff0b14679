"""Reading prediction files, and what is said of files that are wrong."""

import gzip
import io
import json

import pytest
from rich.console import Console

from bigchem.errors import UserError
from bigchem.evaluate.compare import compare_files
from bigchem.evaluate.protocol import Score
from bigchem.evaluate.score import read_predictions, score_file, table, to_json

MOLT5 = 'SMILES\tground truth\toutput\nCC\t"a\u2028b\tb"c\nCO\td, e\t\n'
READ = (["CC", "CO"], ['"a\u2028b', "d, e"], [['b"c'], [""]])


def written(tmp_path, name, content):
    data = content if isinstance(content, bytes) else content.encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["p.txt", "p.tsv", "p.txt.gz"])
@pytest.mark.parametrize("content", [MOLT5, "\ufeff" + MOLT5, MOLT5.replace("\n", "\r\n"), MOLT5.rstrip("\n") + "\n\n"])
def test_molt5_tables_are_read_without_quoting(tmp_path, name, content):
    assert read_predictions(written(tmp_path, name, content)) == READ


def test_columns_may_stand_in_any_order_and_have_other_names(tmp_path):
    path = written(tmp_path, "p.tsv", "n\tprediction\tsource\ttarget\n1\tp\ts\tt\n")
    assert read_predictions(path) == (["s"], ["t"], [["p"]])
    path = written(tmp_path, "p.tsv", "description\tground truth\toutput\ns\tt\tp\n")
    assert read_predictions(path) == (["s"], ["t"], [["p"]])


def test_csv_is_read_with_quoting(tmp_path):
    content = 'SMILES,ground truth,output\nCC,"a, ""b""\nc",d\n\nCO,e,\n'
    assert read_predictions(written(tmp_path, "p.csv", content)) == (["CC", "CO"], ['a, "b"\nc', "e"], [["d"], [""]])


def test_jsonl_holds_one_prediction_or_a_list(tmp_path):
    rows = [
        {"source": "s", "target": "t\t\n", "predictions": ["a", "b"], "more": 1},
        {"source": "", "target": "ü", "prediction": ""},
    ]
    content = "\n".join(map(json.dumps, rows)) + "\n\n"
    expected = (["s", ""], ["t\t\n", "ü"], [["a", "b"], [""]])
    assert read_predictions(written(tmp_path, "p.jsonl.gz", content)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", MOLT5 + "CC\ta\tb\tc\n", "p.txt:4: 4 fields, the header has 3"),
        ("p.txt", MOLT5 + "CC\ta\n", "p.txt:4: 2 fields"),
        ("p.txt", "SMILES\toutput\nCC\ta\n", "p.txt:1: no column 'ground truth' or 'target'"),
        ("p.txt", "", "p.txt:1: no column 'SMILES'"),
        ("p.txt", MOLT5.splitlines()[0], "p.txt: no predictions"),
        ("p.txt", MOLT5.encode() + b"\xff\ta\tb\n", "p.txt:4: not UTF-8"),
        ("p.csv", 'SMILES,ground truth,output\nCC,a,b\nCC,"a"x,b\n', "p.csv:3: not CSV"),
        ("p.csv", "SMILES,ground truth,output\nCC,a,b,c\n", "p.csv:2: 4 fields"),
        ("p.jsonl", '{"source": "s", "target": "t", "prediction": "p"}\nx\n', "p.jsonl:2: not JSON"),
        ("p.jsonl", "[1]\n", "p.jsonl:1: not a JSON object"),
        ("p.jsonl", '{"source": 1, "target": "t", "prediction": "p"}\n', "p.jsonl:1: 'source' and 'target'"),
        ("p.jsonl", '{"source": "s", "target": "t", "predictions": []}\n', "p.jsonl:1: 'predictions'"),
        ("p.jsonl", '{"source": "s", "target": "t", "prediction": null}\n', "p.jsonl:1: 'predictions'"),
        ("p.jsonl", '{"source": "s", "target": "t"}\n', "p.jsonl:1: 'predictions'"),
        ("p.jsonl", "\n", "p.jsonl: no predictions"),
        ("p.json", "{}", "p.json: unknown kind of file '.json'"),
    ],
)
def test_wrong_files_are_told_with_file_and_line(tmp_path, name, content, message):
    with pytest.raises(UserError) as error:
        read_predictions(written(tmp_path, name, content))
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_missing_and_truncated_files_are_told(tmp_path):
    with pytest.raises(UserError, match=r"no such file\nnext: "):
        read_predictions(tmp_path / "absent.txt")
    with pytest.raises(UserError, match=r"a folder, not a file\nnext: "):
        read_predictions(tmp_path)
    path = written(tmp_path, "p.txt.gz", MOLT5)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(UserError, match=r"cannot read: .*\nnext: "):
        read_predictions(path)
    path.write_bytes(b"SMILES")
    with pytest.raises(UserError, match="cannot read"):
        read_predictions(path)


def test_score_file_reads_and_scores(tmp_path):
    path = written(tmp_path, "p.csv", "source,target,output\nx,CCO,OCC\ny,CC,C\n")
    scores = {score.metric: score for score in score_file("forward", path, bootstrap=50)}
    assert scores["top1"].value == 0.5
    assert scores["top1"].low is not None


def test_a_file_of_another_task_is_refused(tmp_path):
    captions = written(tmp_path, "captions.txt", "SMILES\tground truth\toutput\nCC\tan alkane\ta gas\n")
    with pytest.raises(UserError, match=r"captions\.txt: no target is a molecule, .* 'an alkane'") as refused:
        score_file("generation", captions)
    assert refused.value.hint == "is this a file of generation?"
    with pytest.raises(UserError, match="no target is a molecule"):
        compare_files("forward", captions, captions)
    molecules = written(tmp_path, "molecules.txt", "description\tground truth\toutput\nan alkane\tCC\tC(\n")
    with pytest.raises(UserError, match="unknown task 'captions'"):
        score_file("captions", captions)
    assert score_file("generation", molecules)  # a wrong prediction is no wrong file


def test_table_and_json_show_every_score():
    scores = [
        Score("generation", "exact", 0.25, 0.125, 0.5, 8, "exact/inchi-v1"),
        Score("generation", "fcd", None, None, None, 0, "fcd/x", "pip install 'bigchem[fcd]'"),
    ]
    out = io.StringIO()
    Console(width=200, file=out).print(table(scores))
    shown = out.getvalue()
    assert "0.2500" in shown
    assert "0.1250 .. 0.5000" in shown
    assert "n/a" in shown
    assert "pip install 'bigchem[fcd]'" in shown
    assert json.loads(json.dumps(to_json(scores)))[1] == {
        "task": "generation",
        "metric": "fcd",
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "definition": "fcd/x",
        "note": "pip install 'bigchem[fcd]'",
    }
