"""Texts that do not round-trip through the tokenizer, and tasks that lose all rows as leaks: reported and limited."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.build.lossy import Lossy, check_lossy, count_lossy, lossy_table, sum_lossy
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import load_recipe
from bigchem.data.build.report import print_report
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer

QUIET = Progress()
SPELLED = "Stir for 1 h. STIR"


@pytest.mark.parametrize("prompt", ["", "for: ", "Δ: "])
def test_texts_with_other_characters_are_lost_whatever_becomes_of_the_prompt(prompt):
    tokenizer = Tokenizer.train([SPELLED, "for:"], 300)
    texts = ["Stir.", "Stir α", " 1 β h.", " Stir"]
    found = count_lossy(tokenizer, texts, tokenizer.encode_batch([prompt + text for text in texts]), prompt)
    assert (found.texts, found.lost, found.unknown) == (4, 2, 2)
    assert [example["expected"] for example in found.examples] == texts[1:3]
    assert all("<unk>" in example["found"] for example in found.examples)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8))
def test_counts_of_shards_add_up_and_three_examples_stay(shards):
    report = sum_lossy(
        ("actions", {"source": asdict(Lossy(texts + lost, lost, 0, [{"at": n}] * min(3, lost)))})
        for n, (texts, lost) in enumerate(shards)
    )
    whole = Lossy(**report["actions source"])
    assert (whole.texts, whole.lost) == (sum(map(sum, shards)), sum(lost for _, lost in shards))
    assert len(whole.examples) == min(3, whole.lost)
    check_lossy(report, whole.share)
    if whole.lost:
        with pytest.raises(UserError, match="actions source"):
            check_lossy({"actions source": {**report["actions source"], "examples": []}}, whole.share * 0.99)


def test_the_worst_side_is_named_with_the_others_and_a_limit_that_is_enough():
    example = {"at": 0, "expected": "[α]", "found": "[<unk>]"}
    report = {
        "captioning source": asdict(Lossy(100, 2, 2, [example])),
        "captioning target": asdict(Lossy(100, 31, 5, [example] * 3)),
        "generation target": asdict(Lossy(100)),
    }
    with pytest.raises(UserError, match="max_lossy: captioning target: 31 of 100 texts") as refused:
        check_lossy(report, 0.01)
    assert "5 with unknown characters: '[α]' became '[<unk>]'; " in refused.value.what
    assert refused.value.what.endswith("so have captioning source")
    assert "max_lossy = 0.31" in str(refused.value.hint)
    check_lossy(report, 0.31)
    assert lossy_table(report).row_count == 2


def recipe(folder: Path, train: list[str], test: list[str], **fields: object) -> Path:
    for name, texts in (("train", train), ("test", test)):
        lines = (json.dumps({"source": text, "target": "STIR.", "task": "actions"}) for text in texts)
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    sources = "".join(
        f'[[sources]]\nformat = "jsonl"\nsplit = "{name}"\npath = "{name}.jsonl"\n' for name in ("train", "test")
    )
    given = "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
    path = folder / "recipe.toml"
    path.write_text(given + sources)
    return path


def test_a_build_counts_lost_texts_stops_over_the_limit_and_goes_on_with_a_higher_one(tmp_path, capsys):
    path = recipe(tmp_path, ["Stir it.", "Wait for it."], ["Stir α.", "Stir."])
    with pytest.raises(UserError, match=r"actions source: 1 of 4 texts \(25.0%\) do not come back"):
        build(load_recipe(path), tmp_path / "data", QUIET, workers=1)
    made = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.arrow")}
    assert made
    index = build(load_recipe(path, ("max_lossy=0.25",)), tmp_path / "data", QUIET, workers=1)
    assert sorted(file.stat().st_mtime_ns for file in tmp_path.glob("data/*/*.arrow")) == sorted(
        stamp for file, stamp in made.items() if file.parent.parent.name == "data"
    )
    assert (index.report["lossy"]["actions source"]["lost"], index.report["lossy"]["actions target"]["lost"]) == (1, 0)
    print_report(index)
    assert "'Stir α.' became 'Stir <unk>.'" in capsys.readouterr().out


def test_a_task_that_is_all_leaks_is_named_with_the_pair_of_sets(tmp_path, capsys):
    path = recipe(tmp_path, ["Stir.", "Wait."], ["Stir.", "Wait."])
    with pytest.raises(UserError, match="all 2 training rows of actions are dropped as leaks: 2 with the source of"):
        build(load_recipe(path), tmp_path / "data", QUIET, workers=1)
    rows = [{"SMILES": "CCO", "text": "It is."}, {"SMILES": "CCN", "text": "It is not."}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    more = '[[sources]]\nformat = "jsonl"\npath = "rows.json"\ncolumns = {smiles = "SMILES", text = "text"}\n'
    path = recipe(tmp_path, ["Stir.", "Wait."], ["Filter."])
    text = path.read_text() + f'{more}tasks = ["captioning"]\nsplit = "train"\n'
    path.write_text(f'{text}{more}tasks = ["generation"]\nsplit = "test"\n')
    build(load_recipe(path, ("max_lossy=1.0",)), tmp_path / "data", QUIET, workers=1)
    message = "all 2 training rows of captioning are dropped as leaks: 2 about molecules of test/generation"
    assert message in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match=f"no rows for task 'captioning' in split 'train': {message}"):
        Data(tmp_path / "data").split("train", "captioning")
