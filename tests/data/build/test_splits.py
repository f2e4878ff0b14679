"""Splits within a source: by a keyed hash of what stays together, or by a column of the file."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading import config, write
from real_files import REAL_DATA

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import load_recipe
from bigchem.data.build.splits import NAMES, position, refuse_empty, rows_by_split, scaffold, split_of
from bigchem.data.init.trial import Trial, lacks_a_split
from bigchem.data.sources import reader
from bigchem.data.sources.base import Row, RowError, SourceConfig
from bigchem.data.storage.index import Index
from bigchem.data.storage.shards import Data
from bigchem.tasks import shipped

QUIET = Progress(quiet=True)
TASKS = REAL_DATA.parent / "tasks"
SMILES = [f"{'C' * n}{end}" for n in range(1, 30) for end in ("O", "N", "Cl", "c1ccccc1", "C1CCNCC1")]


def source(**fields: object) -> SourceConfig:
    return config("csv", "x.csv", **{"split": None, **fields})


def splits(found: SourceConfig) -> dict[str, str]:
    """Split by target, of a source whose targets differ."""
    records = reader(found.format).records(found, shipped())
    return {row.target: split for record in records for row, split in rows_by_split(record, found, shipped())}


def built(tmp_path: Path, text: str) -> Index:
    """max_lossy: a vocabulary trained on a few rows cannot spell another split's."""
    (tmp_path / "recipe.toml").write_text(f"max_lossy = 1.0\n[[sources]]\n{text}")
    return build(load_recipe(tmp_path / "recipe.toml"), tmp_path / "data", QUIET, workers=1, overwrite=True)


def captions(tmp_path: Path, name: str, molecules: list[str], *, first: int = 0) -> Path:
    return write(tmp_path, name, "s,t,g", *(f"{s},Number {n + first}.,{n % 7}" for n, s in enumerate(molecules)))


COLUMNS = {"smiles": "s", "text": "t"}


@pytest.mark.parametrize("by", ["random", "molecule", "scaffold", "g"])
def test_adding_and_shuffling_rows_moves_no_other_row(tmp_path: Path, by: str) -> None:
    fields = {"columns": COLUMNS, "tasks": ["captioning"], "split_by": by, "valid_fraction": 0.2, "test_fraction": 0.2}
    path = captions(tmp_path, "rows.csv", SMILES)
    before = splits(config("csv", path, split=None, **fields))
    header, *lines = path.read_text().splitlines()
    lines += captions(tmp_path, "more.csv", SMILES[:40], first=1000).read_text().splitlines()[1:]
    random.Random(0).shuffle(lines)
    after = splits(config("csv", write(tmp_path, "rows.csv", header, *lines), split=None, **fields))
    assert set(before.values()) == {"train", "valid", "test"}
    assert len(after) == len(before) + 40
    assert before == {target: after[target] for target in before}


@given(st.text(), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_larger_test_fraction_only_adds_test_rows(target: str, small: float, more: float, valid: float) -> None:
    row = Row("actions", "x", target)

    def split(test: float) -> str:
        return split_of(row, "", source(test_fraction=test, valid_fraction=valid or 0.1))

    assert split(small) != "test" or split(min(small + more, 0.5)) == "test"


@given(st.integers(0, 2**64 - 1), st.floats(0.02, 0.98))
def test_the_share_of_a_split_is_its_fraction(seed: int, share: float) -> None:
    n = 2000
    held_out = sum(position(str(i), seed) < share for i in range(n))
    assert abs(held_out - n * share) < 6 * (n * share * (1 - share)) ** 0.5


def test_another_seed_is_another_draw_and_the_draw_is_the_same_on_every_machine() -> None:
    assert [round(position(name, seed), 6) for name in ("", "CCO") for seed in (0, 1)] == [
        0.888835,
        0.352527,
        0.07975,
        0.777914,
    ]


@pytest.mark.parametrize("by", ["molecule", "scaffold"])
@given(st.permutations([f"OC[C@H](N)C{'C' * n}" for n in range(9)]))
def test_all_rows_of_a_molecule_fall_together_whatever_their_task_and_spelling(by: str, molecules: list[str]) -> None:
    found = source(split_by=by, valid_fraction=0.3, test_fraction=0.3)
    for molecule in molecules:
        mirrored = molecule.replace("@H", "@@H")
        rows = [
            Row("captioning", molecule, "An alcohol.", molecule),
            Row("generation", "Another text.", mirrored, mirrored),
            Row("retrosynthesis", molecule, "CO.N", molecule),
        ]
        assert len({split_of(row, "", found) for row in rows}) == 1


def test_a_scaffold_ignores_side_chains_and_stereochemistry_and_chains_have_none() -> None:
    assert scaffold("OCC1CCC(C)CC1") == scaffold("C1CCCCC1") == "C1CCCCC1"
    assert scaffold("F/C=C/c1ccccc1~[Na+]") == scaffold("Clc1ccccc1") == "c1ccccc1"
    assert scaffold("CCO") == ""
    both = {
        split_of(Row("captioning", s, "", s), "", source(split_by="scaffold", test_fraction=0.5)) for s in SMILES[:60:5]
    }
    assert both == {"train", "test"}, "molecules without a ring are not one group"


def test_both_directions_of_a_pair_fall_together() -> None:
    found = source(test_fraction=0.5)
    for smiles in SMILES:
        pair = Row("captioning", smiles, "A."), Row("generation", "A.", smiles)
        assert len({split_of(row, "", found) for row in pair}) == 1


def test_rows_of_a_file_or_with_one_value_in_a_column_fall_together(tmp_path: Path) -> None:
    for n in range(12):
        captions(tmp_path, f"part{n}.csv", SMILES[10 * n : 10 * n + 10], first=100 * n)
    common = {"split": None, "columns": COLUMNS, "tasks": ["captioning"], "test_fraction": 0.5}
    by_file = splits(config("csv", tmp_path / "part*.csv", split_by="file", **common))
    files = [{by_file[f"Number {100 * n + i}."] for i in range(10)} for n in range(12)]
    assert sorted(map(len, files)) == [1] * 12
    assert set().union(*files) == {"train", "test"}
    by_value = splits(config("csv", tmp_path / "part*.csv", split_by="g", **common))
    values = [{by_value[f"Number {100 * n + i}."] for n in range(12) for i in (g, g + 7) if i < 10} for g in range(7)]
    assert sorted(map(len, values)) == [1] * 7
    assert set().union(*values) == {"train", "test"}


@pytest.mark.parametrize("name", ["csv", "jsonl", "datasets"])
def test_a_column_of_the_file_names_the_splits(tmp_path: Path, name: str) -> None:
    folds = [*NAMES, "Train ", "VAL", "7", "8"]
    rows = [{"s": f"{'C' * n}O", "t": f"Number {n}.", "fold": fold} for n, fold in enumerate(folds, start=1)]
    if name == "csv":
        path = write(tmp_path, "x.csv", "s,t,fold", *(",".join(row.values()) for row in rows))
    else:
        path = write(tmp_path, "x.jsonl", *map(json.dumps, rows))
    fields = {"columns": COLUMNS, "tasks": ["captioning"], "split_names": {"7": "test", "8": ""}}
    found = splits(config(name, path, split=None, split_column="fold", **fields))
    assert list(found.values()) == [NAMES.get(fold.strip().lower(), "test") for fold in folds[:-1]]


def test_other_names_of_splits_are_counted_and_unknown_ones_refused_with_their_list(tmp_path: Path) -> None:
    folds = ["train"] * 20 + ["dev"] * 3 + ["holdout"] * 2 + ["", "unused"]
    write(tmp_path, "x.csv", "s,t,fold", *(f"{'C' * n}O,Number {n}.,{fold}" for n, fold in enumerate(folds, start=1)))
    text = 'format = "csv"\npath = "x.csv"\ncolumns = {smiles = "s", text = "t"}\nsplit_column = "fold"\n'
    with pytest.raises(UserError, match=r"'holdout' \(2\), '' \(1\), 'unused' \(1\)\nnext: map each: split_names"):
        built(tmp_path, text)
    index = built(tmp_path, f'{text}split_names = {{holdout = "test", "" = "", unused = ""}}')
    assert index.rows("train") == {"captioning": 20, "generation": 20}
    assert index.rows("test") == {"captioning": 2, "generation": 2}
    (found,) = index.report["sources"]
    assert found["splits"] == {"train": 40, "valid": 6, "test": 4}
    assert found["split_names"] == {"dev is valid": 6, "holdout is test": 4}
    assert found["left_out"] == 2


def test_realised_counts_are_reported_and_an_empty_split_is_refused_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bigchem.data.build.report import print_report

    captions(tmp_path, "x.csv", SMILES)
    text = 'format = "csv"\npath = "x.csv"\ncolumns = {smiles = "s", text = "t"}\nsplit_by = "molecule"\n'
    index = built(tmp_path, f"{text}valid_fraction = 0.1\ntest_fraction = 0.2\n")
    (found,) = index.report["sources"]
    assert sum(found["splits"].values()) == found["rows"] == 2 * len(SMILES)
    print_report(index)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"by molecule: {found['splits']['train']} train, {found['splits']['valid']} valid" in printed
    assert not any(leaks["dropped"] for leaks in index.report["leaked"].values()), "molecules stay together"
    with pytest.raises(UserError, match=r"split 'test' is empty: 290 rows split by molecule.*\n.*test_fraction = "):
        built(tmp_path, f"{text}test_fraction = 0.0001\n")


def test_a_source_whose_rows_are_all_held_out_needs_no_training_rows() -> None:
    rows = Counter(test=70, valid=30)
    held_out = source(test_fraction=0.7, valid_fraction=0.3)
    refuse_empty(rows, held_out, "x.csv")
    assert not lacks_a_split(held_out, Trial(records=100, splits=rows))
    some = source(test_fraction=0.6, valid_fraction=0.3)
    with pytest.raises(UserError, match=r"split 'train' is empty: .*, a share of 0\.1 was asked for"):
        refuse_empty(rows, some, "x.csv")
    assert lacks_a_split(some, Trial(records=100, splits=rows))


def test_augmented_rows_are_training_rows_only(tmp_path: Path) -> None:
    captions(tmp_path, "x.csv", SMILES)
    fields = {"split": None, "columns": COLUMNS, "tasks": ["captioning"], "augment": 2, "test_fraction": 0.5}
    found = config("csv", tmp_path / "x.csv", **fields)
    rows = [
        pair for record in reader("csv").records(found, shipped()) for pair in rows_by_split(record, found, shipped())
    ]
    assert {split for row, split in rows if row.question is not None} == {"train"}
    assert len({(row.target, split) for row, split in rows}) == len(SMILES), "spellings follow their row"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"`split` is missing: give split = 'train', 'valid' or 'test'; or valid_fraction"),
        ({"split": "train", "test_fraction": 0.1}, "give one of"),
        ({"split_column": "x", "test_fraction": 0.1}, "give one of"),
        ({"valid_fraction": 0.6, "test_fraction": 0.6}, "should be at most 1"),
        ({"split": "train", "split_by": "molecule"}, "are for valid_fraction"),
        ({"split": "train", "split_names": {"a": "test"}}, "split_names"),
        ({"format": "chebi20", "test_fraction": 0.1, "split_by": "year"}, "no such column"),
        ({"format": "chebi20", "split_column": "split"}, "split_column is for csv"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SourceConfig.model_validate({"format": "csv", "path": "x", **fields})


def test_rows_without_a_molecule_cannot_be_split_by_one(tmp_path: Path) -> None:
    path = write(tmp_path, "x.csv", "source,target", "Stir.,STIR.")
    found = config("csv", path, split=None, tasks=["actions"], split_by="molecule", test_fraction=0.5)
    with pytest.raises(RowError, match="split_by = 'molecule', but task 'actions' has no molecule"):
        splits(found)


@pytest.mark.data
def test_esol_is_split_by_scaffold(tmp_path: Path) -> None:
    path = TASKS / "moleculenet" / "esol.csv"
    if not path.is_file():
        pytest.skip("no tasks/moleculenet/esol.csv")
    text = f'format = "csv"\npath = "{path}"\ncolumns = {{smiles = "smiles", text = "measured_log_solubility"}}\n'
    text += 'tasks = ["captioning"]\nsplit_by = "scaffold"\nvalid_fraction = 0.1\ntest_fraction = 0.1\n'
    index = built(tmp_path, text)
    data = Data(tmp_path / "data")
    scaffolds = {}
    for split in ("train", "valid", "test"):
        rows = data.split(split, "captioning")
        scaffolds[split] = {scaffold(rows.text(n)[1]) for n in range(len(rows))} - {""}
        assert scaffolds[split]
    assert not scaffolds["train"] & scaffolds["test"]
    assert not scaffolds["train"] & scaffolds["valid"]
    assert index.report["leaked"]["captioning"]["dropped"] <= 2


@pytest.mark.data
def test_the_names_are_split_by_their_own_column(tmp_path: Path) -> None:
    path = TASKS / "names" / "names.csv"
    if not path.is_file():
        pytest.skip("no tasks/names/names.csv")
    text = f'format = "csv"\npath = "{path}"\ncolumns = {{smiles = "smiles", text = "iupac"}}\n'
    index = built(tmp_path, f'{text}tasks = ["captioning"]\nsplit_column = "label"\n')
    (found,) = index.report["sources"]
    assert (found["records"], found["rejected"]) == (600, 1), "RDKit cannot read one of the 500 for training"
    assert found["splits"] == {"train": 499, "test": 100}
    assert (index.rows("train"), index.rows("test")) == ({"captioning": 499}, {"captioning": 100})
