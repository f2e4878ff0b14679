"""Published collections: task names, splits and tags mapped by the recipe; OpenNMT's src and tgt files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset
from reading import check, config, read, write

from bigchem.base.errors import UserError
from bigchem.data.sources.base import Row

INSTRUCTIONS = [
    {"input": "[C][C][O]", "output": "An alcohol.", "metadata": {"task": "description", "split": "train"}},
    {"input": "[C][C][C]", "output": "An alkane.", "metadata": {"task": "description", "split": "test"}},
    {"input": "CCO", "output": "C2H6O", "metadata": {"task": "formula", "split": "train"}},
]
OPTIONS = {
    "columns": {"source": "input", "target": "output", "task": "metadata.task"},
    "task_names": {"description": "captioning", "formula": ""},
    "where": {"metadata.split": ["train", "valid"]},
}


def test_nested_task_names_and_splits_are_mapped(tmp_path: Path) -> None:
    expected = [Row("captioning", "CCO", "An alcohol.", "CCO")]
    (tmp_path / "a.json").write_text(json.dumps(INSTRUCTIONS))
    assert read(config("jsonl", tmp_path / "a.json", **OPTIONS)) == (expected, [])
    Dataset.from_list(INSTRUCTIONS).to_parquet(tmp_path / "a.parquet")
    assert read(config("datasets", tmp_path / "a.parquet", **OPTIONS)) == (expected, [])
    flat = ["input,output,kind,split", "CCO,An alcohol.,description,train", "CCC,An alkane.,description,test"]
    table = config(
        "csv",
        write(tmp_path, "a.csv", *flat, "CCO,C2H6O,formula,train"),
        columns={"source": "input", "target": "output", "task": "kind"},
        task_names=OPTIONS["task_names"],
        where={"split": "train"},
    )
    assert read(table) == (expected, [])


def test_a_task_name_that_is_not_mapped_is_rejected_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(INSTRUCTIONS[2:]))
    source = config("jsonl", tmp_path / "a.json", **{**OPTIONS, "task_names": {"description": "captioning"}})
    assert read(source) == ([], ["unknown task 'formula': map it in `task_names`"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"format": "jsonl", "task_names": {"x": "captoining"}},
            r"maps 'x' to 'captoining', which is no task\n.*did you mean 'captioning'",
        ),
        (
            {"format": "csv", "columns": {"source": "a", "target": "b"}, "task_names": {"x": "forward"}},
            "task_names needs a task column",
        ),
        ({"format": "chebi20", "where": {"split": "train"}}, "where is for csv, tsv, jsonl, datasets"),
        ({"format": "jsonl", "quoting": "none"}, "quoting is for csv, tsv"),
        ({"format": "parallel_text", "tasks": ["forward", "retrosynthesis"]}, "parallel_text has one task"),
        ({"format": "datasets", "encoding": "latin-1"}, "encoding is for"),
    ],
)
def test_options_that_mean_nothing_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(fields)


def test_src_and_tgt_of_opennmt_are_reactions_both_ways(tmp_path: Path) -> None:
    source = write(tmp_path, "src-1.txt", "C C O . C C ( = O ) Cl", "C C N . Br C")
    target = write(tmp_path, "tgt-1.txt", "C C O C ( C ) = O", "C C N C")
    rows, reasons = read(config("parallel_text", source, target_path=str(target), tasks=["forward"]))
    assert [(row.task, row.source, row.target) for row in rows] == [
        ("forward", "CCO.CC(=O)Cl", "CCOC(C)=O"),
        ("forward", "CCN.BrC", "CCNC"),
    ]
    assert reasons == []
    swapped = config("parallel_text", f"{tmp_path}/tgt-*.txt", target_path=str(source), tasks=["retrosynthesis"])
    assert [(row.source, row.target) for row in read(swapped)[0]] == [(row.target, row.source) for row in rows]
    write(tmp_path, "tgt-2.txt", "C")
    with pytest.raises(UserError, match="2 files, but 1 in target_path"):
        read(swapped)
