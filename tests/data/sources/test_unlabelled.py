"""Unlabelled corpora: documents cut at spaces, molecules kept as written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import config, read, write

from bigchem.data.sources.base import Row, RowError
from bigchem.data.sources.rows import text_spans


def test_text_lines_are_documents_and_long_ones_several_rows(tmp_path):
    long = " ".join(["molecule"] * 50_000)
    file = write(tmp_path, "a.txt", "  First one. ", "", long, "x" * 3000)
    rows, reasons = read(config("text_lines", file))
    assert rows[0] == Row("text_spans", "First one.", "")
    assert " ".join(row.source for row in rows[1:]) == long
    assert max(len(row.source) for row in rows) <= 2000
    assert len(rows) <= 2 + len(long) // 1900
    assert reasons == ["a word of more than 2000 characters"]


@settings(deadline=None)
@given(st.lists(st.text(alphabet="ab\u00e9", min_size=1, max_size=9), min_size=1), st.sampled_from([" ", "\n", "  "]))
def test_cut_document_loses_no_word_and_no_piece_is_too_long(words, space):
    rows = text_spans(space.join(words), 9)
    assert [word for row in rows for word in row.source.split()] == words
    assert all(0 < len(row.source) <= 9 and row.source == row.source.strip() for row in rows)


@pytest.mark.parametrize("text", ["x" * 10, "a " + "x" * 10, "x" * 10 + " a", "x" * 9 + " " + "x" * 10 + " a"])
def test_word_longer_than_a_piece_is_refused(text):
    with pytest.raises(RowError, match="a word of more than 9"):
        text_spans(text, 9)


def test_smiles_lines_take_the_first_field_skip_a_header_and_refuse_what_is_no_molecule(tmp_path):
    file = write(tmp_path, "a.smi", "SMILES Name", "OCC\tethanol", "[Na+].[Cl-]", "", "F/C=C\\\\F", "C1CC x", "smiles")
    rows, reasons = read(config("smiles_lines", file))
    assert [(row.task, row.source, row.target, row.molecule, row.repairs) for row in rows] == [
        ("smiles_spans", "OCC", "", "OCC", ("name",)),
        ("smiles_spans", "[Na+].[Cl-]", "", "[Na+]~[Cl-]", ()),
        ("smiles_spans", "F/C=C\\F", "", "F/C=C\\F", ("backslashes",)),
    ]
    assert reasons == ["RDKit cannot read 'C1CC'", "RDKit cannot read 'smiles'"]
    assert read(config("smiles_lines", write(tmp_path, "b.smi", "CCO", "C")))[0][0].source == "CCO"
