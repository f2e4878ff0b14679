"""Prediction files in every format: what is read from them, and the messages for those that cannot be read."""

import json
import zipfile

import pytest
from made_predictions import ROW, written

from bigchem.base.errors import UserError
from bigchem.evaluate.prediction_files.align import aligned
from bigchem.evaluate.prediction_files.tables import ReadAs, read_examples

MOLT5 = 'SMILES\tground truth\toutput\nCC\t"a\u2028b\tb"c\nCO\td, e\t\n'
READ = (["CC", "CO"], ['"a\u2028b', "d, e"], [['b"c'], [""]])


def read_predictions(path, **how):
    """Sources, the single reference of each, and predictions."""
    read = read_examples(path, ReadAs(**how))
    return read.sources, read.single(str(path)), read.predictions


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
        ("p.jsonl", '{"source": 1, "target": "t", "prediction": "p"}\n', "p.jsonl:1: 'source' must be"),
        ("p.jsonl", '{"source": "s", "target": "t", "predictions": [1]}\n', "p.jsonl:1: 'predictions'"),
        ("p.jsonl", '{"source": "s", "target": [], "prediction": "p"}\n', "p.jsonl:1: 'source' must be"),
        ("p.jsonl", '{"source": "s", "target": "t"}\n', "p.jsonl:1: 'predictions'"),
        ("p.jsonl", "\n", "p.jsonl: no predictions"),
        ("p.xlsx", "{}", "p.xlsx: unknown kind of file '.xlsx'"),
        ("p.json", "[{}, 1]", "p.json:1: 'source' must be"),
        ("p.csv", "source,target,output,prediction\n", "p.csv:1: 'output' or 'prediction'?"),
        ("p.csv", "source,target,prediction,prediction\n", "p.csv:1: 2 columns are called 'prediction'"),
        ("p.csv", "source,target,target,prediction\n", "p.csv:1: 2 columns are called 'target'"),
        ("p.csv", "source,target,beam_1,beam_1\n", "p.csv:1: 'beam_1' and 'beam_1' have one number"),
        ("p.jsonl", '{"source": "s", "prediction": 1, "prediction": 2}', "p.jsonl:1: the key 'prediction' twice"),
        (
            "p.json",
            '[{"source": "s", "target": "t", "prediction": "p", "predictions": []}]',
            "p.json:1: 'prediction' or",
        ),
    ],
)
def test_wrong_files_are_told_with_file_and_line(tmp_path, name, content, message):
    with pytest.raises(UserError) as error:
        read_predictions(written(tmp_path, name, content))
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_one_of_two_keys_may_be_named(tmp_path):
    path = written(tmp_path, "p.json", '[{"source": "s", "target": "t", "prediction": "p", "predictions": ["q"]}]')
    assert read_predictions(path, columns={"prediction": "predictions"})[2] == [["q"]]


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


KBEST = "original_smiles,target_smiles,prediction_0,log_likelihood_0,prediction_1,log_likelihood_1\n"


def test_numbered_columns_are_the_k_best_and_short_lists_end_where_they_do(tmp_path):
    path = written(tmp_path, "p.csv", KBEST + "s,t,a,-1,b,-2\ns,t,?,-1,c,-2\ns,t,a,-1,,\ns,t,,,b,-2\ns,t,,,,\n")
    read = read_examples(path)
    assert read.predictions == [["a", "b"], ["?", "c"], ["a"], ["", "b"], [""]]
    assert read.counts == {"null or empty predictions, counted as wrong": 2}
    path = written(tmp_path, "q.tsv", "in\tout\tbeam2\tbeam1\tbeam10\ns\tt\tb\ta\tz\n")
    named = {"source": "in", "target": "out"}
    with pytest.raises(UserError, match="no column 'output'"):
        read_predictions(path, columns=named)
    assert read_predictions(path, columns={**named, "prediction": "beam1"})[2] == [["a"]]
    path = written(tmp_path, "q.tsv", "in\tout\tbeam2\tbeam1\ns\tt\tb\ta\n")
    assert read_predictions(path, columns={**named, "prediction": "beam*"})[2] == [["a", "b"]]
    assert read_predictions(path, columns=named)[2] == [["a", "b"]]


def test_an_empty_best_of_k_lines_is_counted(tmp_path):
    for name, text in (("src", "C\nC\n"), ("tgt", "CC\nCC\n"), ("pred", "\nCC\nCC\nC\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    read = read_examples(tmp_path / "pred.txt", ReadAs(sources=tmp_path / "src.txt", references=tmp_path / "tgt.txt"))
    assert (read.predictions, read.counts) == (
        [["", "CC"], ["CC", "C"]],
        {"null or empty prediction, counted as wrong": 1},
    )
    (tmp_path / "tgt.txt").write_text("CC\nnan\n")
    with pytest.raises(UserError, match=r"tgt\.txt:2: the target is 'nan'"):
        read_examples(tmp_path / "pred.txt", ReadAs(sources=tmp_path / "src.txt", references=tmp_path / "tgt.txt"))


@pytest.mark.parametrize("name", ["p.csv", "p.tsv"])
@pytest.mark.parametrize(("separator", "word"), [(";", "';'"), ("\t", "tabs"), (",", "','")])
def test_the_header_shows_the_separator_whatever_the_name(tmp_path, capsys, name, separator, word):
    path = written(tmp_path, name, "source;target;prediction\nC;a gas;b\n".replace(";", separator))
    assert read_predictions(path) == (["C"], ["a gas"], [["b"]])
    said = capsys.readouterr().err
    usual = separator == ("," if name == "p.csv" else "\t")
    assert said == "" if usual else f"fields are separated by {word}, not" in said
    path = written(tmp_path, name, "source;target;made".replace(";", separator) + "\n")
    with pytest.raises(UserError, match=r"the header is \['source', 'target', 'made'\]"):
        read_predictions(path)


def test_fields_in_quotes_hold_semicolons(tmp_path):
    path = written(tmp_path, "p.csv", 'source;target;prediction\n"a;b";t;"p, ""q"""\n')
    assert read_predictions(path) == (["a;b"], ["t"], [['p, "q"']])


def test_column_names_in_another_case_are_read_and_named(tmp_path, capsys):
    path = written(tmp_path, "p.csv", "Source, target,PREDICTION\ns,t,p\n")
    assert read_predictions(path) == (["s"], ["t"], [["p"]])
    assert "p.csv:1: read 'Source' as 'source', ' target' as 'target', 'PREDICTION' as 'pre" in capsys.readouterr().err
    path = written(tmp_path, "p.csv", "source,Source,target,prediction\ns,x,t,p\n")
    assert read_predictions(path)[0] == ["s"]
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="2 columns are called 'prediction'"):
        read_predictions(written(tmp_path, "p.csv", "source,target,Prediction,PREDICTION\n"))


def test_an_archive_without_another_suffix_is_of_the_kind_of_its_file(tmp_path):
    for name, member in (("g.zip", "in/g.jsonl"), ("g.jsonl.zip", "other"), ("g", "g.json")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, '{"source": "s", "target": "t", "prediction": "p"}')
        assert read_predictions(tmp_path / name) == (["s"], ["t"], [["p"]])


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16"])
def test_utf16_is_recognised_and_the_option_named(tmp_path, encoding):
    content = '{"source": "s", "target": "t", "prediction": "\N{GREEK SMALL LETTER ALPHA}-D-glucose"}'
    path = written(tmp_path, "p.jsonl", content.encode(encoding))
    with pytest.raises(UserError, match=rf"not UTF-8 but {encoding.upper()}, .*\nnext: .*--encoding {encoding}$"):
        read_predictions(path)
    assert read_predictions(path, encoding=encoding)[0] == ["s"]


def test_quoting_encoding_and_nested_keys_are_as_the_data_readers_have_them(tmp_path):
    pandas = 'SMILES\tground truth\toutput\nCC\t"The ""l"" form\nor not"\tc\n'
    assert read_predictions(written(tmp_path, "p.txt", pandas))[1] == ['The "l" form\nor not']
    assert read_predictions(written(tmp_path, "p.txt.gz", pandas.encode("utf-16")), encoding="utf-16")[2] == [["c"]]
    with pytest.raises(UserError, match="4: not UTF-8\nnext: name the encoding, such as --encoding"):
        read_predictions(written(tmp_path, "p.txt", MOLT5.encode() + b"CC\t\xe9\tb\n"))
    assert read_predictions(
        written(
            tmp_path,
            "p.txt",
            pandas.replace("or", "a\tb\tc"),
        ),
        quoting="standard",
    )
    nested = written(tmp_path, "p.jsonl", '{"q": {"text": "s"}, "a": ["t"], "made": [{"smiles": "C"}]}')
    named = {"source": "q.text", "target": "a.0", "prediction": "made.0.smiles"}
    assert read_predictions(nested, columns=named) == (["s"], ["t"], [["C"]])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (["nosuch=a"], {}, "--column: unknown role 'nosuch'"),
        (["source"], {}, "--column: no name for 'source'"),
        ([], {"encoding": "nosuch"}, "--encoding: unknown encoding"),
        ([], {"quoting": "double"}, "--quoting: unknown quoting 'double'"),
    ],
)
def test_wrong_options_are_refused(columns, options, message):
    with pytest.raises(UserError, match=message):
        ReadAs.of(columns, None, options.get("encoding"), options.get("quoting"))


@pytest.mark.parametrize("longer", ["src", "tgt", "pred"])
def test_an_empty_last_line_is_named(tmp_path, longer):
    for name in ("src", "tgt", "pred"):
        (tmp_path / f"{name}.txt").write_text("C\nC\n" + "\n" * (name == longer))
    how = ReadAs(sources=tmp_path / "src.txt", references=tmp_path / "tgt.txt")
    with pytest.raises(UserError, match=rf"next: the last line of .*{longer}\.txt is empty: remove it"):
        read_examples(tmp_path / "pred.txt", how)


def test_log_probabilities_of_labels_are_read_from_a_column_or_field(tmp_path):
    expected = [[-0.5, -1.0], [-2.0, -0.25]]
    csv = 'source,target,prediction,label_log_probabilities\ns,no,no,"[-0.5, -1]"\ns,no,yes,[-2.0 -0.25]\n'
    assert read_examples(written(tmp_path, "p.csv", csv)).label_log_probabilities == expected
    lines = [json.dumps({**ROW, "label_log_probabilities": numbers}) for numbers in expected]
    assert read_examples(written(tmp_path, "p.jsonl", "\n".join(lines))).label_log_probabilities == expected
    renamed = written(tmp_path, "q.jsonl", "\n".join(lines).replace("label_log_probabilities", "logp"))
    assert read_examples(renamed).label_log_probabilities is None
    how = ReadAs.of(["label_log_probabilities=logp"], None, None, None)
    assert read_examples(renamed, how).label_log_probabilities == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[-1, -2], None], "p.jsonl: example 2 has 0 label_log_probabilities, the first 2"),
        ([None, None, [-1]], "p.jsonl: example 3 has 1 label_log_probabilities, the first 0"),
        ([[-1, -2], [-1]], "p.jsonl: example 2 has 1 label_log_probabilities, the first 2"),
        ([[-1, "a"]], "p.jsonl:1: label_log_probabilities is no list of finite numbers"),
        (["high"], "p.jsonl:1: label_log_probabilities is no list of finite numbers"),
    ],
)
def test_log_probabilities_that_do_not_fit_are_refused(tmp_path, rows, message):
    lines = [json.dumps({**ROW, "label_log_probabilities": numbers}) for numbers in rows]
    with pytest.raises(UserError) as error:
        read_examples(written(tmp_path, "p.jsonl", "\n".join(lines)))
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_numbers_follow_their_examples_into_another_order(tmp_path):
    files = []
    for name, order in (("a.jsonl", "xyz"), ("b.jsonl", "zxy")):
        numbers = ({"label_log_probabilities": [-float(ord(x))], "loss_and_tokens": [ord(x), 2]} for x in order)
        rows = [{**ROW, "source": source, **both} for source, both in zip(order, numbers, strict=True)]
        files.append(written(tmp_path, name, "\n".join(map(json.dumps, rows))))
    first, second = map(read_examples, files)
    assert aligned(first, second, *files) == first
