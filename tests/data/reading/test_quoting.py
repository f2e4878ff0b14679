"""Quoted and unquoted tables: recognised by their records, or refused with the option that decides."""

from __future__ import annotations

import csv
import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import config, published, read, write

from bigchem.base.errors import UserError
from bigchem.data.reading.delimited import Layout, table_records
from bigchem.data.sources import reader
from bigchem.tasks import shipped

TSV = Layout("\t")


def fields(text: str, layout: Layout = TSV) -> list[list[str]]:
    return [fields for _, fields in table_records(iter(text.split("\n")), layout, 1000, "file")]


@pytest.mark.parametrize("kind", ["chebi20", "tsv"])
def test_what_pandas_writes_is_recognised(kind, tmp_path):
    texts = ["An alcohol.", 'It is "wood spirit".', "Two\nlines.", 'One\twith a tab and a 5" pipe', "Last."]
    pd.DataFrame({"CID": range(5), "SMILES": "C", "description": texts}).to_csv(
        tmp_path / "a.tsv", sep="\t", index=False
    )
    columns = {} if kind == "chebi20" else {"columns": {"smiles": "SMILES", "text": "description"}}
    rows, reasons = read(config(kind, tmp_path / "a.tsv", tasks=["captioning"], **columns))
    assert ([row.target for row in rows], reasons) == (texts, [])
    rows, reasons = read(config(kind, tmp_path / "a.tsv", tasks=["captioning"], quoting="none", **columns))
    assert (rows[1].target, len(reasons)) == ('"It is ""wood spirit""."', 1 if kind == "chebi20" else 2)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.text(alphabet='ab\t"\n é', max_size=8), min_size=2, max_size=2), max_size=6),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_csv_writes_is_read_back_or_refused_and_never_misread(table, quoting):
    file = io.StringIO(newline="")
    csv.writer(file, "excel-tab", lineterminator="\n", quoting=quoting).writerows([["a", "b"], *table])
    whole = [record for record in table if any(field.strip() for field in record)]
    try:
        found = fields(file.getvalue())[1:]
    except UserError:
        found = fields(file.getvalue(), TSV._replace(quoting="standard"))[1:]
    assert [record for record in found if any(field.strip() for field in record)] == whole


@settings(deadline=None)
@given(st.lists(st.lists(st.text(alphabet='ab" é', max_size=8), min_size=2, max_size=2), max_size=6))
def test_without_quoting_every_quote_is_a_character(table):
    text = "\n".join("\t".join(record) for record in table)
    assert fields(text, TSV._replace(quoting="none")) == [record for record in table if "\t".join(record).strip()]


@pytest.mark.parametrize(
    "lines",
    [
        ['O\tThe "d" form', 'C\t"alpha" and "beta"', 'C\t"open', "C\tlast"],
        ['O\t"alpha" and "beta"', 'C\tends in 5"'],
        ['O\t"quoted whole"'],
        ['O\t"open', "C\tand nothing closes it"],
    ],
)
def test_quotes_of_text_stay(lines):
    assert fields("\n".join(["a\tb", *lines]))[1:] == [line.split("\t") for line in lines]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['O\t"d" form', 'C\t"an ""l"" form"'], "line 2 is not quoted, line 3 is quoted"),
        (['O\t"an ""l"" form"', 'C\t"d" form'], "line 2 is quoted, line 3 is not quoted"),
        (['O\t"open', 'C\tclosed"'], "lines 2 to 3 read as one record or as 2"),
    ],
)
def test_a_file_that_is_quoted_here_and_not_there_is_refused(lines, message):
    with pytest.raises(UserError, match="ambiguous quoting") as refused:
        fields("\n".join(["a\tb", *lines]))
    assert message in str(refused.value)
    assert refused.value.hint is not None
    assert "quoting = 'standard'" in refused.value.hint


def test_columns_that_other_programs_wrote_may_be_quoted_otherwise():
    lines = ['O\tThe "d" form\tx', 'C\t"The ""d"" form"\tThe "d" form', 'N\t"or\n""not"""\tx', 'S\t"a ""b"""\t5" pipe']
    expected = [["O", 'The "d" form', "x"], ["C", 'The "d" form', 'The "d" form']]
    expected += [["N", 'or\n"not"', "x"], ["S", 'a "b"', '5" pipe']]
    assert fields("\n".join(["a\tb\tc", *lines]))[1:] == expected


def test_a_header_in_quotes_is_that_of_a_quoted_file():
    assert fields('"a"\t"b"\n"O"\t"Water"') == [["a", "b"], ["O", "Water"]]


def test_csv_is_quoted_unless_the_source_says_otherwise(tmp_path):
    file = write(tmp_path, "a.csv", "smiles,text", 'O,"Water"', 'C,5" pipe')
    columns = {"smiles": "smiles", "text": "text"}
    assert [r.target for r in read(config("csv", file, columns=columns))[0][::2]] == ["Water", '5" pipe']
    found = read(config("csv", file, columns=columns, quoting="none"))[0][::2]
    assert [row.target for row in found] == ['"Water"', '5" pipe']


def test_a_document_in_quotes_may_be_as_long_as_any_other(tmp_path):
    document = '"Water", ' + "boils at 100 °C. " * 10_000
    quoted = document.replace('"', '""')
    for lines in (["text", f'"{quoted}"'], ["smiles,text", f'O,"{quoted}"']):
        rows, reasons = read(config("csv", write(tmp_path, "a.csv", *lines), columns={"text": "text"}))
        assert (" ".join(row.source for row in rows), reasons) == (document.strip(), [])


def test_a_malformed_record_of_one_column_is_refused_and_not_read_with_its_quotes(tmp_path):
    file = write(tmp_path, "a.csv", "text", '"open', "Water.", '"closed" too early')
    rows, reasons = read(config("csv", file, columns={"text": "text"}))
    assert [row.source for row in rows] == ["Water."]
    assert reasons == ["wrong number of columns, or a quote that is not closed"] * 2


def test_a_record_that_ends_before_the_number_of_quotes_is_even_takes_no_later_line():
    lines = ['"a', 'b",5" c', 'd" e,x', "f,g"]
    expected = [["a\nb", '5" c'], ['d" e', "x"], ["f", "g"]]
    assert fields("\n".join(["a,b", *lines]), Layout(","))[1:] == expected
    assert fields("\n".join(lines), Layout(",")) == list(csv.reader(f"{line}\n" for line in lines)) == expected


@pytest.mark.data
def test_published_files_are_not_quoted():
    for name in ("validation.txt", "test.txt"):
        source = config("chebi20", published("chebi20", name))
        plain = source.model_copy(update={"quoting": "none"})
        assert list(reader("chebi20").records(source, shipped())) == list(reader("chebi20").records(plain, shipped()))
