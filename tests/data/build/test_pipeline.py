from __future__ import annotations

import json
from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import BuildConfig, load_recipe
from bigchem.data.inspect.show import rows_of
from bigchem.data.storage.shards import Data

QUIET = Progress(quiet=True)
ROW = '{"task": "actions", "source": "%s", "target": "STIR."}\n'


def recipe(tmp_path: Path, text: str) -> BuildConfig:
    """max_lossy: a vocabulary trained on a handful of rows cannot spell another split's."""
    (tmp_path / "recipe.toml").write_text(f"max_lossy = 1.0\n{text}")
    return load_recipe(tmp_path / "recipe.toml")


def jsonl(tmp_path: Path, name: str, lines: list[str]) -> str:
    (tmp_path / name).write_text("".join(lines))
    return f'[[sources]]\nformat = "jsonl"\npath = "{name}"\nsplit = "train"\n'


def synthetic(rows: int, split: str, seed: int) -> str:
    return f'[[sources]]\nformat = "synthetic"\nsplit = "{split}"\nrows = {rows}\nseed = {seed}\n'


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_two_builds_are_byte_identical_whatever_the_number_of_workers(tmp_path: Path) -> None:
    config = recipe(tmp_path, synthetic(450, "train", 1) + synthetic(20, "test", 2))
    build(config, tmp_path / "one", QUIET, workers=1)
    build(config, tmp_path / "two", QUIET, workers=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_building_what_is_built_does_nothing_and_another_recipe_is_refused(tmp_path: Path) -> None:
    config = recipe(tmp_path, synthetic(60, "train", 1))
    first = build(config, tmp_path / "data", QUIET, workers=1)
    before = (tmp_path / "data" / "index.json").stat().st_mtime_ns
    assert build(config, tmp_path / "data", QUIET, workers=1) == first
    assert (tmp_path / "data" / "index.json").stat().st_mtime_ns == before
    other = recipe(tmp_path, synthetic(61, "train", 1))
    with pytest.raises(UserError, match="--overwrite"):
        build(other, tmp_path / "data", QUIET, workers=1)
    assert build(other, tmp_path / "data", QUIET, workers=1, overwrite=True) != first


def test_a_licence_is_stated_without_another_build(tmp_path: Path) -> None:
    source = synthetic(60, "train", 1)
    first = build(recipe(tmp_path, source), tmp_path / "data", QUIET, workers=1)
    for line, stated in (('license = "cc0-1.0"\n', "cc0-1.0"), ('license = "mit"\n', "mit"), ("", None)):
        index = build(recipe(tmp_path, source + line), tmp_path / "data", QUIET, workers=1)
        assert index.report["sources"][0].get("license") == stated
        assert (index.recipe, index.fingerprint) == (first.recipe, first.fingerprint)
    assert index == first


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.txt").write_text("x")
    config = recipe(tmp_path, synthetic(60, "train", 1))
    with pytest.raises(UserError, match="choose another folder"):
        build(config, tmp_path / "data", QUIET, workers=1, overwrite=True)
    assert (tmp_path / "data" / "precious.txt").exists()


def test_every_row_decodes_to_its_text(small_data: Path) -> None:
    rows = rows_of(small_data, "test", None, 100)
    assert {row["task"] for row in rows} == {"captioning", "generation", "forward", "retrosynthesis", "actions"}
    assert all(row["round_trips"] for row in rows)


def test_training_rows_about_test_molecules_are_left_out(tmp_path: Path) -> None:
    text = (
        synthetic(300, "train", 1) + 'tasks = ["captioning"]\n' + synthetic(40, "test", 1) + 'tasks = ["generation"]\n'
    )
    index = build(recipe(tmp_path, text), tmp_path / "data", QUIET, workers=1)
    data = Data(tmp_path / "data")
    held_out = data.split("test", "generation")
    smiles = {held_out.text(i)[2] for i in range(len(held_out))}
    train = data.split("train", "captioning")
    assert not smiles & {train.text(i)[1] for i in range(len(train))}
    assert index.report["leaked"]["captioning"]["dropped"] > 0


def test_training_rows_with_the_source_of_a_held_out_row_are_left_out_and_counted(tmp_path: Path) -> None:
    train = jsonl(tmp_path, "train.jsonl", [ROW % f"Stir {i}." for i in range(20)])
    asked = [(ROW % f"Stir {i}.").replace("STIR", "WAIT") for i in (3, 7, 99)]
    test = jsonl(tmp_path, "test.jsonl", asked).replace('"train"', '"test"')
    index = build(recipe(tmp_path, train + test), tmp_path / "data", QUIET, workers=1)
    assert index.rows("train") == {"actions": 18}
    assert index.report["leaked"]["actions"]["same_source"] == index.report["leaked"]["actions"]["dropped"] == 2
    everything = build(recipe(tmp_path, 'keep_out = "none"\n' + train + test), tmp_path / "all", QUIET, workers=1)
    assert everything.rows("train") == {"actions": 20}


def test_other_spellings_of_a_held_out_source_are_left_out_with_it(tmp_path: Path) -> None:
    reaction = '{"task": "forward", "source": "%s", "target": "%s"}\n'
    train = [
        reaction % ("OCC.CC(=O)O", "CCOC(C)=O"),
        *(reaction % (f"{'C' * n}O", f"{'C' * n}Cl") for n in range(2, 9)),
    ]
    text = jsonl(tmp_path, "train.jsonl", train) + "augment = 4\n"
    text += jsonl(tmp_path, "test.jsonl", [reaction % ("OCC.CC(=O)O", "CC=O")]).replace('"train"', '"test"')
    index = build(recipe(tmp_path, text), tmp_path / "data", QUIET, workers=1)
    rows = Data(tmp_path / "data").split("train", "forward")
    assert not any("C(=O)O" in rows.text(i)[1] or "." in rows.text(i)[1] for i in range(len(rows)))
    assert index.report["leaked"]["forward"]["same_source"] > 1


def test_an_unreadable_row_is_listed_with_its_line_and_does_not_stop_the_build(tmp_path: Path) -> None:
    lines = [ROW % f"Stir {i}." for i in range(40)]
    lines[10] = "garbage\n"
    build(recipe(tmp_path, jsonl(tmp_path, "rows.jsonl", lines)), tmp_path / "data", QUIET, workers=1)
    rejected = [json.loads(line) for line in (tmp_path / "data" / "rejected.jsonl").read_text().splitlines()]
    assert [(Path(r["file"]).name, r["line"]) for r in rejected] == [("rows.jsonl", 11)]


def test_doubtful_texts_in_a_file_of_selfies_are_counted_and_the_option_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("selfies")
    texts = {"[C][C][O]": "ethanol", "[C]": "methane", "[O][O]": "peroxide"}
    rows = [{"task": "captioning", "source": text, "target": name} for text, name in texts.items()]
    source = jsonl(tmp_path, "rows.jsonl", [json.dumps(row) + "\n" for row in rows])
    index = build(recipe(tmp_path, source), tmp_path / "a", Progress(), workers=1)
    said = " ".join(capsys.readouterr().err.split())
    assert "1 rows are SELFIES; 2 more may be" in said
    assert "set selfies = true in this [[sources]] table" in said
    assert index.report["sources"][0]["repairs"] == {"selfies": 1, "doubtful": 2}
    index = build(recipe(tmp_path, f"{source}selfies = true\n"), tmp_path / "b", Progress(), workers=1)
    assert "may be" not in capsys.readouterr().err
    assert index.report["sources"][0]["repairs"] == {"selfies": 3}


def test_too_many_unreadable_rows_stop_the_build_and_leave_nothing_under_its_name(tmp_path: Path) -> None:
    lines = [ROW % f"Stir {i}." for i in range(40)] + ["garbage\n"] * 10
    with pytest.raises(UserError, match=r"10 of 50 records are unreadable.*line 41"):
        build(recipe(tmp_path, jsonl(tmp_path, "rows.jsonl", lines)), tmp_path / "data", QUIET, workers=1)
    assert not (tmp_path / "data").exists()


def test_an_empty_corpus_is_a_user_error(tmp_path: Path) -> None:
    actions = [ROW % f"Stir {i}." for i in range(3)]
    for lines, tasks, message in (
        ([], "", "the file is empty"),
        (["garbage\n"] * 3, "", r"no record could be read \(3 rejected\); the first: line 1: not JSON"),
        (actions, 'tasks = ["forward"]\n', "none of 3 records has a requested task"),
    ):
        with pytest.raises(UserError, match=message):
            build(recipe(tmp_path, jsonl(tmp_path, "rows.jsonl", lines) + tasks), tmp_path / "data", QUIET, workers=1)
    with pytest.raises(UserError, match="no training rows"):
        build(recipe(tmp_path, synthetic(20, "test", 1)), tmp_path / "data", QUIET, workers=1)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[sources]]\nformat = "synthetik"\nsplit = "train"', "did you mean 'synthetic'"),
        ('[[sources]]\nformat = "chebi20"\nsplit = "train"\npath = "x"\ntasks = ["actions"]', "gives no rows for task"),
        ('[[sources]]\nformat = "synthetic"\nsplit = "train"\ntasks = ["captions"]', "unknown task 'captions'"),
        ('[[sources]]\nformat = "synthetic"\nsplit = "training"', "split"),
        (
            '[[sources]]\nformat = "synthetic"\nsplit = "train"\nmax_rejected = 0.1',
            "sources\\[0\\]: unknown key `max_rejected`\nnext: 'max_rejected' belongs at the top of the file",
        ),
        ("", "sources"),
    ],
)
def test_mistakes_in_a_recipe_are_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        recipe(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    config = recipe(tmp_path, '[[sources]]\nformat = "chebi20"\nsplit = "train"\npath = "none.txt"\n')
    with pytest.raises(UserError, match=r"none\.txt"):
        build(config, tmp_path / "data", QUIET, workers=1)
