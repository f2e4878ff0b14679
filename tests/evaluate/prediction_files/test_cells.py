"""A list in one cell is read whole, as whatever wrote it meant it, or the cell is a text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.evaluate.prediction_files.cells import null_as_empty, read_list, read_numbers, resembles_list
from bigchem.evaluate.prediction_files.tables import ReadAs, read_examples
from bigchem.evaluate.score import score_file
from bigchem.tasks import shipped


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("['CCO' 'CCC']", ["CCO", "CCC"]),
        ("['CCO'\n 'CCC'\n 'C']", ["CCO", "CCC", "C"]),
        ("['CCO', None]", ["CCO", ""]),
        ("[nan, 'CCO']", ["", "CCO"]),
        ("[null]", [""]),
        ("[]", []),
        ("('CCO', 'CCC')", ["CCO", "CCC"]),
        ("('CCO',)", ["CCO"]),
        ("array(['CCO', 'CCC'], dtype=object)", ["CCO", "CCC"]),
        ("np.array(['CCO', nan],\n      dtype='<U3')", ["CCO", ""]),
        ("[np.str_('CCO'), np.str_('CCC')]", ["CCO", "CCC"]),
        ('["CCC", "CCO"]', ["CCC", "CCO"]),
        (r"""["F/C=C\\F", 'F/C=C\\F']""", [r"F/C=C\F"] * 2),
        (r"""['it\'s' "it's" "\u00e9" "\ud83d\ude00"]""", ["it's", "it's", "é", "😀"]),
        ("['The molecule is ethanol.' 'x']", ["The molecule is ethanol.", "x"]),
    ],
)
def test_lists_as_programs_write_them(cell: str, texts: list[str]) -> None:
    assert read_list(cell) == read_list(f" {cell}\n") == texts


@pytest.mark.parametrize(
    "cell",
    [
        *("[C][C][O]", "[Na+].[Cl-]", "[nH]1cccc1", "[Na+]", "(C)", "", "[", "['", "]", "[C]'a']"),
        *("['a''b']", "['a', C]", "['a',, 'b']", "[, 'a']", "['a'", "[['a'], ['b']]", "['a', ...]", r"['\N']"),
        *("('a')", "('a' 'b')", "()", "array('a')", "['a'] is a list", "A gas [1]", "(2R)-an acid", "[NoneNone]"),
    ],
)
def test_anything_else_is_a_text(cell: str) -> None:
    assert read_list(cell) is None


texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=8), min_size=1, max_size=4)


@given(texts)
def test_what_json_python_and_numpy_write_comes_back(several: list[str]) -> None:
    known = [null_as_empty(text) for text in several]
    for cell in (json.dumps(several), repr(several), repr(tuple(several)), str(np.array(several, dtype=object))):
        assert [null_as_empty(text) for text in read_list(cell) or []] == known


@pytest.mark.parametrize("task", ["forward", "captioning"])
def test_lists_are_read_in_every_column_format_and_task(task: str, tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text("source,target,prediction\nC,\"['CCO' 'CCN']\",\"['CCN', None]\"\nC,CC,\"(nan, 'CC')\"\n")
    objects = tmp_path / "p.jsonl"
    objects.write_text(
        '{"source": "C", "target": "[\\"CCO\\", \\"CCN\\"]", "prediction": "[\\"CCN\\", null]"}\n'
        '{"source": "C", "target": "CC", "predictions": [null, "CC"]}\n'
    )
    for file in (table, objects):
        read = read_examples(file)
        assert read.references == [["CCO", "CCN"], ["CC"]]
        assert read.predictions == [["CCN", ""], ["", "CC"]]
        assert read.counts == {"null or empty predictions, counted as wrong": 2}
        assert score_file(shipped()[task], file)


def test_lists_of_opennmt_lines_count_as_lists(tmp_path: Path) -> None:
    for name, text in (("src", "C\nC\n"), ("tgt", "['CCO' 'CCN']\nCC\n"), ("pred", "['CCN', None]\n[nan 'CC']\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    read = read_examples(tmp_path / "pred.txt", ReadAs(sources=tmp_path / "src.txt", references=tmp_path / "tgt.txt"))
    assert (read.references, read.predictions) == ([["CCO", "CCN"], ["CC"]], [["CCN", ""], ["", "CC"]])


@pytest.mark.parametrize("cell", ["['CCO', ['CC']]", "['CCO' 'CC", "['CCO' ... 'CC']", "array(['CCO',", "[nan, CCO]"])
def test_a_list_that_does_not_parse_is_counted_and_scored_as_written(cell: str, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"source": "C", "target": "CC", "prediction": cell}) + "\n")
    read = read_examples(file)
    assert read.predictions == [[cell]]
    assert list(read.counts.values()) == [1]
    assert "like lists that do not parse" in next(iter(read.counts))


@pytest.mark.parametrize(
    "text", ["[C][C][O]", "[Na+].[Cl-]", "[2H]O", "(R)-butan-2-ol", "(none)", "[nH]1cccc1", "ADD water;"]
)
def test_no_molecule_or_sentence_resembles_a_list(text: str) -> None:
    assert not resembles_list(text)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1))
def test_numbers_are_read_as_json_python_and_numpy_write_them(numbers: list[float]) -> None:
    array = np.array(numbers, dtype=np.float32)
    assert read_numbers(json.dumps(numbers)) == read_numbers(repr(numbers)) == read_numbers(numbers) == numbers
    assert read_numbers(np.array2string(array, threshold=10**6, floatmode="unique")) == pytest.approx(numbers, rel=1e-6)


@pytest.mark.parametrize("value", ["", "-0.1", "[]", "[", "[a]", "[1, nan]", "[1, Infinity]", [], [True], ["x"], {}, 1])
def test_what_is_no_list_of_finite_numbers_is_not_read(value: object) -> None:
    assert read_numbers(value) is None
