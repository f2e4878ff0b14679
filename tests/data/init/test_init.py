"""`bigchem data init`: the tasks that it finds in tables, and that the recipe that it writes builds."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from own_tables import FORMULAS, NAMES_OF, PRODUCTS, QUIET, REACTANTS, SMILES, TEXTS, N, jsonl, made, records, table

from bigchem.base.errors import UserError
from bigchem.chemistry import is_missing_word
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import load_recipe
from bigchem.data.init.write_recipe import write_recipe
from bigchem.tasks import shipped


def test_molecules_and_captions_become_the_tasks_that_ship(tmp_path: Path) -> None:
    path = table(tmp_path / "mine.csv", {"id": range(N), "canonical": SMILES, "what it is": TEXTS})
    written, index = made(tmp_path, path)
    assert records(written) == {"captioning": None, "generation": None}
    assert set(index.rows("train")) == set(index.rows("test")) == {"captioning", "generation"}
    (source, *_) = written.sources
    assert source.split_by == "molecule"
    text = (tmp_path / "recipe.toml").read_text()
    assert "100 % of 60 cells are SMILES" in text
    assert "#   id: whole numbers, all different" in text
    assert 'path = "mine.csv"' in text, "relative to the recipe"


def test_numbers_and_labels_are_tasks_unless_rdkit_computes_them(tmp_path: Path) -> None:
    weights = [12.011 * s.upper().count("C") for s in SMILES]
    columns = {
        "SMILES": SMILES,
        "logP measured": [f"{n * 0.37:.3f}" for n in range(N)],
        "logP predicted": [f"{n * 0.36:.3f}" for n in range(N)],
        "length": [len(s) for s in SMILES],
        "weight of carbon": weights,
        "state": ["solid", "liquid", "gas"] * (N // 3),
        "toxic": [n % 2 for n in range(N)],
    }
    written, index = made(tmp_path, table(tmp_path / "x.csv", columns))
    assert set(records(written)) == {"logP_measured", "weight_of_carbon", "state", "toxic"}
    assert set(index.rows("train")) == set(records(written))
    assert written.groups[0].proposal.unused["length"].endswith("the length of the SMILES")
    assert "prediction" in written.groups[0].proposal.unused["logP predicted"]


def test_two_columns_whose_names_make_one_task_name_are_two_tasks(tmp_path: Path) -> None:
    columns = {"smiles": SMILES, "y (K)": [n * 0.3 for n in range(N)], "y [K]": [n * -0.3 for n in range(N)]}
    written, index = made(tmp_path, table(tmp_path / "x.csv", columns))
    assert index.rows("train").keys() == records(written).keys() == {"y_K", "y_K_2"}


def test_r_writes_na_for_a_missing_value(tmp_path: Path) -> None:
    path = table(tmp_path / "mine.csv", {"smiles": SMILES, "active": ["yes", "no", "NA"] * (N // 3)})
    written, index = made(tmp_path, path)
    assert records(written)["active"]["labels"] == ["no", "yes"]  # type: ignore[index]
    assert index.report["sources"][0]["rejected"] == N // 3
    assert [is_missing_word(text) for text in ("NA", " NA ", "Na", "na", "n/a")] == [True, True, False, False, True]


@pytest.mark.parametrize("start", ["CHEMBL", "D", "TOX", "C", "P"])
def test_identifiers_that_resemble_formulas_are_none(tmp_path: Path, start: str) -> None:
    ids = [f"{start}{n}" for n in range(100, 100 + N)]
    written, _ = made(tmp_path, table(tmp_path / "mine.csv", {"key": ids, "smiles": SMILES, "y": range(0, 7 * N, 7)}))
    assert set(records(written)) == {"mine"}
    assert "key" in written.groups[0].proposal.unused


@pytest.mark.parametrize("name", ["set", "Split", "fold", "cv_fold", "target_id"])
def test_labels_whose_name_is_a_splits_or_an_identifiers_are_no_task(tmp_path: Path, name: str) -> None:
    columns = {"smiles": SMILES, "y": range(0, 7 * N, 7), name: ["TR", "TE", "VA"] * (N // 3)}
    written, _ = made(tmp_path, table(tmp_path / "mine.csv", columns))
    assert set(records(written)) == {"mine"}
    assert "by its name" in written.groups[0].proposal.unused[name]


@pytest.mark.parametrize(
    ("encoding", "read_as"), [("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("latin-1", "cp1252")]
)
def test_files_that_are_not_utf_8_are_read_as_what_they_are(tmp_path: Path, encoding: str, read_as: str) -> None:
    path = Path(table(tmp_path / "mine.csv", {"smiles": SMILES, "description": [f"{text} Öl" for text in TEXTS]}))
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    written, index = made(tmp_path, str(path))
    assert {source.encoding for source in written.sources} == {read_as}
    assert index.report["sources"][0]["rejected"] == 0


def test_damaged_utf_8_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    path = Path(table(tmp_path / "mine.csv", {"smiles": SMILES, "description": [f"{text} Öl" for text in TEXTS]}))
    path.write_bytes(path.read_bytes().replace("Ö".encode(), b"\xd6", 2))
    written, index = made(tmp_path, str(path))
    assert {source.encoding for source in written.sources} == {None}
    assert index.report["sources"][0]["rejected"] == 2


@pytest.mark.parametrize("first", ["CC(=O)O,7", "CCO,0.5", "CCCCO,7"])
def test_a_file_without_names_of_columns_is_refused(tmp_path: Path, first: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"{first}\n" + "".join(f"{smiles},{n}\n" for n, smiles in enumerate(SMILES)))
    with pytest.raises(UserError, match="its first line"):
        write_recipe([str(path)], tmp_path / "recipe.toml")


@pytest.mark.parametrize("name", ["CONC", "SPIN", "SNPS", "ICON"])
def test_a_name_of_a_column_that_happens_to_be_smiles_is_a_name(tmp_path: Path, name: str) -> None:
    columns = {"smiles": SMILES, name: [f"{n / 7:.3f}" if n % 5 else "-" for n in range(N)]}
    written = write_recipe([table(tmp_path / "mine.csv", columns)], tmp_path / "recipe.toml")
    assert list(records(written)) == [name]


def test_a_column_of_mostly_dashes_is_one_of_mostly_empty_cells(tmp_path: Path) -> None:
    columns = {"smiles": SMILES, "y": ["-" if n % 3 else f"{n / 7:.3f}" for n in range(N)]}
    written = write_recipe([table(tmp_path / "mine.csv", columns)], tmp_path / "recipe.toml")
    assert written.trials[0].reasons.keys() == {"a missing text:"}


def test_files_of_which_no_record_can_be_read_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", [{"smiles": "CCO", "reaction": f"{'C' * n}O>>{'C' * n}O"} for n in range(1, 40)])
    with pytest.raises(UserError, match="39 of 39 records cannot be read"):
        write_recipe([path], tmp_path / "recipe.toml")


def test_files_named_by_split_are_one_task(tmp_path: Path) -> None:
    (tmp_path / "sol").mkdir()
    parts = {"train": (0, 40), "valid": (40, 50), "test": (50, 60)}
    paths = [
        table(tmp_path / "sol" / f"{name}.csv", {"smiles": SMILES[a:b], "y": [f"{n * 0.3:.1f}" for n in range(a, b)]})
        for name, (a, b) in parts.items()
    ]
    written, index = made(tmp_path, *paths)
    assert [source.split for source in written.sources] == ["train", "valid", "test"]
    assert index.rows("test").keys() == {"sol"}


def test_reactions_with_a_yield_are_products_precursors_and_a_number(tmp_path: Path) -> None:
    reactions = [f"{a}>>{b}" for a, b in zip(REACTANTS, PRODUCTS, strict=True)]
    columns = {"rxn": reactions, "yield": [f"{n * 1.5:.1f}" for n in range(N)]}
    written, index = made(tmp_path, table(tmp_path / "rxns.csv", columns))
    assert set(index.rows("train")) == {"forward", "retrosynthesis", "yield"}
    assert (records(written)["yield"] or {})["source"] == "reaction"


def test_classes_of_reactions_are_labels_and_years_are_no_task(tmp_path: Path) -> None:
    reactions = [f"{a}>>{b}" for a, b in zip(REACTANTS, PRODUCTS, strict=True)]
    columns = {"class": [n % 10 + 1 for n in range(N)], "year": [1976 + n % 3 for n in range(N)], "rxn": reactions}
    written, index = made(tmp_path, table(tmp_path / "uspto.csv", columns))
    assert set(index.rows("train")) == {"forward", "retrosynthesis", "uspto_class"}
    assert (records(written)["uspto_class"] or {})["labels"] == [str(n) for n in range(1, 11)]


def test_a_pair_of_texts_is_a_task_of_its_own(tmp_path: Path) -> None:
    rows = [{"source": text, "target": f"STIR for {n} hours at {n} C; WASH."} for n, text in enumerate(TEXTS)]
    written, index = made(tmp_path, jsonl(tmp_path / "steps.jsonl", rows))
    assert (records(written)["steps"] or {})["target"] == "text"
    assert index.rows("train").keys() == {"steps"}


def test_sources_that_begin_with_a_prompt_are_of_its_task(tmp_path: Path) -> None:
    prompts = [task.prompt for task in shipped().scored.values() if task.name in ("captioning", "forward")]
    sides = [(SMILES, TEXTS), (REACTANTS, PRODUCTS)]
    rows = [
        {"source": f"{prompt}{a}", "target": b}
        for prompt, (left, right) in zip(prompts, sides, strict=True)
        for a, b in zip(left, right, strict=True)
    ]
    written, index = made(tmp_path, jsonl(tmp_path / "x.jsonl", rows))
    assert records(written) == {"captioning": None, "forward": None}
    assert set(index.rows("train")) == {"captioning", "forward"}


@pytest.mark.parametrize(
    ("columns", "task"),
    [({"smiles": SMILES}, "smiles_spans"), ({"abstract": TEXTS, "doi": range(N)}, "text_spans")],
)
def test_unlabelled_files_are_for_span_corruption(tmp_path: Path, columns: dict[str, list[str]], task: str) -> None:
    _, index = made(tmp_path, table(tmp_path / "x.csv", columns))
    assert index.rows("train").keys() == {task}


def test_a_file_with_many_unreadable_rows_gets_its_limit_with_the_reason(tmp_path: Path) -> None:
    smiles = [s if n % 8 else "no molecule" for n, s in enumerate(SMILES)]
    written, _ = made(tmp_path, table(tmp_path / "x.csv", {"smiles": smiles, "y": [n * 0.3 for n in range(N)]}))
    assert "max_rejected = " in written.recipe.read_text()
    assert "8 cannot be read" in written.recipe.read_text()


def test_a_column_with_many_empty_cells_is_a_task_of_the_others(tmp_path: Path) -> None:
    numbers = [n * 0.3 if n % 3 == 0 else "" for n in range(N)]
    _, index = made(tmp_path, table(tmp_path / "x.csv", {"smiles": SMILES, "y": numbers}))
    assert sum(index.rows(split).get("x", 0) for split in ("train", "valid", "test")) == N // 3


def test_a_dozen_rows_still_have_a_test_split(tmp_path: Path) -> None:
    _, index = made(tmp_path, table(tmp_path / "x.csv", {"smiles": SMILES[:12], "y": [n * 0.3 for n in range(12)]}))
    assert index.rows("train")
    assert index.rows("test")


def test_nothing_is_overwritten_and_files_without_a_task_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "x.csv", {"a": range(N), "b": [f"n{n}" for n in range(N)]})
    with pytest.raises(UserError, match="no column looks like something to predict"):
        write_recipe([path], tmp_path / "recipe.toml")
    good = table(tmp_path / "y.csv", {"smiles": SMILES, "y": [n * 0.3 for n in range(N)]})
    (tmp_path / "recipe.toml").write_text("precious")
    with pytest.raises(UserError, match="--overwrite"):
        write_recipe([good], tmp_path / "recipe.toml")
    assert (tmp_path / "recipe.toml").read_text() == "precious"
    write_recipe([good], tmp_path / "recipe.toml", overwrite=True)
    for name, content, message in (
        ("x.pdf", "", "cannot tell what kind of file"),
        ("x.xlsx", "", "save its sheet as CSV"),
        ("e.csv", "a,b\n", "no records"),
        ("s.csv", "a;b\n1;2\n", "separated by ';'"),
        ("d.csv", "a,a\n1,2\n", "2 columns are called 'a'"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=message):
            write_recipe([str(tmp_path / name)], tmp_path / "other.toml")


KINDS_OF_CELLS: tuple[Callable[[random.Random, int], object], ...] = (
    lambda rng, _: rng.choice(SMILES),
    lambda rng, _: f"{rng.gauss(0, 3):.4f}",
    lambda rng, _: rng.randrange(2),
    lambda rng, n: f"{' '.join(rng.choices(['a', 'red', 'salt', 'acid'], k=8))} {n}",
    lambda _, n: NAMES_OF[n % N],
    lambda _, n: FORMULAS[n % N],
    lambda rng, _: "".join(rng.choices("aé\"'#[]{}=\\,;>|.~%$ \t", k=6)),
    lambda rng, _: rng.choice(["train"] * 8 + ["val", "test"]),
    lambda rng, n: f"{REACTANTS[n % N]}>>{rng.choice(PRODUCTS)}",
    lambda rng, _: rng.choice(["red", "blue {x}", "green"]),
    lambda rng, _: rng.choice(["", "0.25", "NaN", "7"]),
    lambda rng, _: rng.choice(["CCO", "not smiles", "C1CC"]),
)
NAMES = ("smiles", "y", "a.b", "x [K]", "{z}", 'ta"sk', "task", "source", "target", "input", "output", "é", "", "Class")


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(12))
def test_whatever_a_table_holds_its_recipe_builds_or_it_is_refused(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    rows = rng.choice([8, 20, N, 250])
    cells = [[rng.choice(KINDS_OF_CELLS)] * rows for _ in range(rng.randrange(2, 7))]
    columns = {
        name: [kind(rng, n) for n, kind in enumerate(column)]
        for name, column in zip(rng.sample(NAMES, len(cells)), cells, strict=True)
    }
    path = table(tmp_path / rng.choice(["x.csv", "my train.csv", "x.tsv"]), columns)
    with suppress(UserError):
        write_recipe([path], tmp_path / "recipe.toml")
    if (tmp_path / "recipe.toml").is_file():
        assert build(load_recipe(tmp_path / "recipe.toml"), tmp_path / "data", QUIET, workers=1).rows("train")


def test_the_command_prints_what_it_chose_and_json_on_request(tmp_path: Path) -> None:
    path = table(tmp_path / "y.csv", {"smiles": SMILES, "y [K]": [n * 0.3 for n in range(N)]})
    command = [sys.executable, "-m", "bigchem", "data", "init", path, "--out", str(tmp_path / "r.toml")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "100 % of 60 cells are SMILES" in " ".join(said.split())
    told = json.loads(subprocess.check_output([*command, "--overwrite", "--json"], text=True, timeout=120))
    assert told["files"][0]["columns"]["smiles"]["kind"] == "smiles"
    assert list(told["tasks"]) == ["y_K"]
