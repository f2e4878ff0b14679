"""Named columns: rows from csv, tsv and JSON lines, and recipes that are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import check, config, read, write

from bigchem.base.errors import UserError
from bigchem.data.reading.delimited import table_records
from bigchem.data.sources.base import Row
from bigchem.data.sources.files import COMMAS
from bigchem.tasks import shipped

PAIR = {"smiles": "SMILES", "text": "about"}


def test_jsonl_takes_the_task_from_key_prompt_or_source(tmp_path):
    actions, forward = shipped()["actions"].prompt, shipped()["forward"].prompt
    lines = [
        {"source": f"{actions}Stir.", "target": "STIR."},
        {"source": f"{forward}[Na+]~[OH-]", "target": "O", "task": "forward"},
        {"source": "Stir.", "target": "STIR.", "task": "actions", "year": 1998},
        {"source": "Wait.", "target": "WAIT."},
        {"source": "Wait.", "target": "WAIT.", "task": ["actions"]},
        {"source": "Wait."},
        {"source": f"{forward}CQ", "target": "O"},
        ["source", "target"],
        {"source": "a\0b", "target": "O", "task": "actions"},
        {"source": "a\ud800b", "target": "O", "task": "actions"},
    ]
    file = write(tmp_path, "a.jsonl", *map(json.dumps, lines), "{", "[" * 50_000)
    rows, reasons = read(config("jsonl", file))
    assert rows == [
        Row("actions", "Stir.", "STIR."),
        Row("forward", "[Na+]~[OH-]", "O", "O"),
        Row("actions", "Stir.", "STIR."),
    ]
    assert [reason.split(":")[0].split(" under")[0] for reason in reasons] == [
        "no task",
        "no text",
        "no text",
        "RDKit cannot read 'CQ'",
        "not a JSON object",
        "NUL byte",
        "not valid Unicode",
        "not JSON",
        "not JSON",
    ]
    rows, _ = read(config("jsonl", file, tasks=["actions"]))
    assert rows[-1] == Row("actions", "Wait.", "WAIT.")
    assert len(rows) == 3


def test_csv_quotes_and_their_line_ends_are_standard_and_a_byte_order_mark_is_none(tmp_path):
    file = write(tmp_path, "a.csv", '\ufeffabout,"SMILES"\r', '"An alcohol, ""the""\nbest.",CCO\r', "", "Water,O\r")
    rows, reasons = read(config("csv", file, columns=PAIR))
    text = 'An alcohol, "the"\nbest.'
    assert rows[:2] == [Row("captioning", "CCO", text, "CCO"), Row("generation", text, "CCO", "CCO")]
    assert rows[2] == Row("captioning", "O", "Water", "O")
    assert reasons == []


def test_tsv_quotes_are_characters(tmp_path):
    rows, _ = read(config("tsv", write(tmp_path, "a.tsv", "SMILES\tabout", 'O\t"Water'), columns=PAIR))
    assert rows[0] == Row("captioning", "O", '"Water', "O")


def test_quote_that_is_never_closed_costs_its_own_line_alone(tmp_path):
    lines = [f"C,row {number}" for number in range(20_000)]
    lines[7] = 'C,"open'
    rows, reasons = read(config("csv", write(tmp_path, "a.csv", "SMILES,about", *lines), columns=PAIR))
    assert reasons == ["wrong number of columns, or a quote that is not closed"]
    assert [row.target for row in rows[::2]] == [f"row {number}" for number in range(20_000) if number != 7]


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.text(alphabet='ab,"\n é', max_size=8), min_size=2, max_size=2).filter(any),
        max_size=6,
    )
)
def test_what_csv_writes_is_read_back(table):
    import csv
    import io

    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(table)
    found = list(table_records(iter(file.getvalue().split("\n")), COMMAS, 1000, "file"))
    assert [fields for _, fields in found] == table
    lines = file.getvalue().split("\n")
    assert all(
        lines[number - 1].startswith('"' + fields[0].split("\n")[0].replace('"', '""')) for number, fields in found
    )


def test_reaction_column_goes_both_ways(tmp_path):
    file = write(tmp_path, "a.csv", "rxn", "[Na+].[OH-].CBr>O>CO |f:0.1|")
    rows, _ = read(config("csv", file, columns={"reaction": "rxn"}, reagents="drop"))
    assert [(row.task, row.source, row.target) for row in rows] == [
        ("forward", "CBr.[Na+]~[OH-]", "CO"),
        ("retrosynthesis", "CO", "CBr.[Na+]~[OH-]"),
    ]


def test_task_comes_from_its_column_the_prompt_or_the_source(tmp_path):
    prompt = shipped()["actions"].prompt
    file = write(tmp_path, "a.tsv", "in\tout\tkind", "C\tO\tforward", f"{prompt}Stir.\tSTIR.\t", "Wait.\tWAIT.\t")
    columns = {"source": "in", "target": "out", "task": "kind"}
    rows, reasons = read(config("tsv", file, columns=columns))
    assert rows == [Row("forward", "C", "O", "O"), Row("actions", "Stir.", "STIR.")]
    assert reasons == ["no task: neither a task column nor a prompt, and the source names no task"]
    rows, _ = read(config("tsv", file, columns=columns, tasks=["actions"]))
    assert rows == [Row("actions", "Stir.", "STIR."), Row("actions", "Wait.", "WAIT.")]
    generic = write(tmp_path, "b.csv", "source,target", f"{prompt}Stir.,STIR.")
    assert read(config("csv", generic))[0] == [Row("actions", "Stir.", "STIR.")]


def test_one_column_alone_is_an_unlabelled_corpus(tmp_path):
    file = write(tmp_path, "a.csv", "SMILES,about", "[Na+].[Cl-],Common table salt")
    assert read(config("csv", file, columns={"text": "about"}, tasks=["text_spans"], chunk_chars=12))[0] == [
        Row("text_spans", "Common table", ""),
        Row("text_spans", "salt", ""),
    ]
    assert read(config("csv", file, columns={"smiles": "SMILES"}))[0] == [
        Row("smiles_spans", "[Na+].[Cl-]", "", "[Na+]~[Cl-]")
    ]


@pytest.mark.parametrize("name", ["csv", "tsv"])
def test_missing_column_is_told_with_those_there_are(name, tmp_path):
    file = write(tmp_path, "a.txt", {"csv": "CID,SMILES", "tsv": "CID\tSMILES"}[name], "1")
    with pytest.raises(UserError, match=r"no column 'about'; there are: CID, SMILES"):
        read(config(name, file, columns=PAIR))
    with pytest.raises(UserError, match="there are: none"):
        read(config(name, write(tmp_path, "empty.txt"), columns=PAIR))


def test_jsonl_keys_are_renamed_and_a_missing_one_is_told_with_those_there_are(tmp_path):
    lines = [{"SMILES": "O", "about": "Water", "n": 1}, {"SMILES": "O", "n": 1}, {"SMILES": "O", "about": None}]
    rows, reasons = read(config("jsonl", write(tmp_path, "a.jsonl", *map(json.dumps, lines)), columns=PAIR))
    assert rows == [Row("captioning", "O", "Water", "O"), Row("generation", "Water", "O", "O")]
    assert reasons == ["no text under 'about'; there are: SMILES, n", "no text under 'about'; is null"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "csv", "columns": {"caption": "a"}}, "should be 'source', 'target'"),
        (
            {"format": "csv", "columns": {"source": "a", "text": "b"}},
            r"source \+ text; a source has one of: source",
        ),
        (
            {"format": "csv", "columns": PAIR, "tasks": ["forward"]},
            r"columns smiles \+ text gives no rows for task 'forward'\n.*it gives captioning",
        ),
        ({"format": "chebi20", "columns": PAIR}, "format 'chebi20' has its own"),
        ({"format": "csv", "hub": "owner/name"}, "hub is for datasets"),
        ({"format": "datasets", "hub": "owner/name", "path": "a"}, "path or hub, not both"),
        ({"format": "csv", "split": "test", "augment": 1}, "augment is for split = 'train'"),
        ({"format": "csv", "augment": -1}, "greater than or equal to 0"),
    ],
)
def test_contradiction_in_a_recipe_is_a_user_error(fields: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        check(fields)
