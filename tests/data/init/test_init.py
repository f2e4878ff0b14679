"""`bigchem data init`: what it takes columns for, and that the recipe that it writes builds."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_files import REAL_DATA

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.chemistry import is_missing_word
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import load_recipe
from bigchem.data.init.columns import examine
from bigchem.data.init.write_recipe import Written, write_recipe
from bigchem.data.storage.index import Index
from bigchem.tasks import shipped

QUIET = Progress(quiet=True)
TASKS = REAL_DATA.parent / "tasks"
N = 60
SMILES = [f"{'C' * (n % 12 + 1)}{end}" for n, end in enumerate(["O", "N", "Cl", "c1ccccc1", "C1CCNCC1"] * (N // 5))]
TEXTS = [f"The molecule is an organic compound of {n} parts." for n in range(N)]
PROTEIN = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"


def table(path: Path, columns: Mapping[str, Any]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix in (".tsv", ".tab") else ",")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return str(path)


def jsonl(path: Path, rows: Sequence[object], *, array: bool = False) -> str:
    path.write_text(json.dumps(rows) if array else "".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def made(tmp_path: Path, *paths: str) -> tuple[Written, Index]:
    """The recipe of some files, and the data that it builds."""
    written = write_recipe(paths, tmp_path / "recipe.toml")
    return written, build(load_recipe(tmp_path / "recipe.toml"), tmp_path / "data", QUIET, workers=1)


def kinds(written: Written) -> dict[str, str]:
    return {name: column.kind for group in written.groups for name, column in group.columns.items()}


def records(written: Written) -> dict[str, dict[str, Any] | None]:
    return {task.name: task.record for group in written.groups for task in group.proposal.tasks}


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (SMILES, "smiles"),
        (["[C][C][O]", "[C][=O]", "[C][N][C]"] * 9 + ["[C][C][C][C][O]"], "label"),
        ([f"[C]{'[C]' * n}[O]" for n in range(1, 40)], "smiles"),
        ([f"CCO>>{'C' * n}OC" for n in range(1, 40)], "reaction"),
        ([f"CCO.CC(=O)O>[H+]>{'C' * n}OC |f:0.1|" for n in range(1, 40)], "reaction"),
        ([f"{n}.5" for n in range(40)], "number"),
        (["1e-9", "2.5E3", "-4"] + [str(n) for n in range(20, 60)], "number"),
        (["0", "1"] * 30, "label"),
        (["1.0", "0.0", ""] * 30, "label"),
        (["Yes", "No"] * 30, "label"),
        (["C", "N", "O"] * 30, "label"),
        ([f"C{n}H{2 * n + 2}O" for n in range(1, 40)], "formula"),
        ([f"{n}-methyl{n}-propylheptan-{n}-ol" for n in range(1, 40)], "name"),
        ([PROTEIN[n % 5 :] + "ACDEFGHIKL"[n % 7 :] for n in range(40)], "protein"),
        (TEXTS, "text"),
        (["train", "val", "test"] * 20, "split"),
        (["Train"] * 50 + ["Dev"] * 5, "split"),
        (["train"] * 30, "constant"),
        (["", "NaN", "-"] * 10, "empty"),
        ([str(n) for n in range(100, 160)], "identifier"),
        ([f"drug{n}" for n in range(60)], "identifier"),
    ],
)
def test_a_column_is_known_by_its_cells(cells: list[str], kind: str) -> None:
    assert examine("x", cells).kind == kind


@given(st.lists(st.text(max_size=12), max_size=30))
def test_any_cells_are_of_some_kind_and_say_why(cells: list[str]) -> None:
    assert examine("x", cells).why


def test_a_number_has_the_decimals_that_resolve_its_spread_and_labels_end_with_the_positive_one() -> None:
    assert examine("x", [f"{n / 10:.6f}" for n in range(40)]).decimals == 2
    assert examine("x", [f"{n}" for n in range(0, 4000, 100)]).decimals == 0
    assert examine("x", [f"{n}e-7" for n in range(40)]).decimals is None
    for no, yes in (("BBB-", "BBB+"), ("nonmutagenic", "mutagenic"), ("Non-binder", "binder"), ("not toxic", "Toxic")):
        assert examine("x", [no, yes] * 9).values == examine("x", [yes, no] * 9).values == (no, yes)
    assert examine("IC50", [f"{10 ** (n / 10 - 3):.4f}" for n in range(60)]).decimals == 4, "0.0016 to 794"
    assert examine("x", ["Yes", "No"] * 9).values == ("No", "Yes")
    assert examine("x", ["1", "0"] * 9).values == ("0", "1")
    assert examine("x", ["inactive", "active"] * 9).values == ("inactive", "active")


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


def test_several_columns_of_no_and_yes_are_one_task_of_labels_as_in_tox21(tmp_path: Path) -> None:
    columns = {f"NR-{n}": ["" if (i + n) % 5 == 0 else (i + n) % 2 for i in range(N)] for n in range(8)}
    written, index = made(tmp_path, table(tmp_path / "tox21.csv", {**columns, "mol_id": range(N), "smiles": SMILES}))
    record = records(written)["tox21"]
    assert record is not None
    assert (record["target"], record["labels"]) == ("labels", list(columns))
    assert index.rows("train").keys() == {"tox21"}


@pytest.mark.parametrize("target", [[f"{n * 0.37:.3f}" for n in range(N)], [n % 2 for n in range(N)]])
def test_tdc_with_a_generic_name_for_its_target_takes_the_files_name(tmp_path: Path, target: list[object]) -> None:
    path = table(tmp_path / "caco2_wang.tab", {"Drug_ID": [f"d{n}" for n in range(N)], "Drug": SMILES, "Y": target})
    written, index = made(tmp_path, path)
    assert index.rows("train").keys() == records(written).keys() == {"caco2_wang"}


def test_a_protein_beside_the_molecule_is_part_of_the_prompt(tmp_path: Path) -> None:
    proteins = [PROTEIN[n % 9 :] for n in range(N)]
    columns = {"Drug": SMILES, "Target": proteins, "Y": [f"{n * 0.11:.2f}" for n in range(N)]}
    written, _ = made(tmp_path, table(tmp_path / "davis.csv", columns))
    record = records(written)["davis"]
    assert record is not None
    assert "{Target}" in record["prompt"]


def smol(task: str, left: Sequence[str], right: Sequence[str], **more: str) -> list[dict[str, object]]:
    """Rows with SMolInstruct's columns."""
    return [
        {
            "sample_id": f"{task}.{n}",
            "input": f"A sentence about <SMILES> {a} </SMILES>",
            "output": f"It is {b} .",
            "raw_input": a,
            "raw_output": b,
            "split": "train",
            "task": task,
            "input_core_tag_left": "<SMILES>",
            "target": more.get("target"),
        }
        for n, (a, b) in enumerate(zip(left, right, strict=True))
    ]


NAMES_OF = [f"{n}-methyl-{n}-propylheptan-{n}-ol" for n in range(1, N + 1)]
FORMULAS = [f"C{n}H{2 * n + 2}O" for n in range(1, N + 1)]
REACTANTS = [f"CC(=O)O.{s}.[Na+].[OH-]" for s in SMILES]
PRODUCTS = [f"CC(=O)N{s}" for s in SMILES]


def smol_rows() -> list[dict[str, object]]:
    return [
        *smol("forward_synthesis", REACTANTS, PRODUCTS),
        *smol("retrosynthesis", PRODUCTS, REACTANTS),
        *smol("molecule_captioning", SMILES, TEXTS),
        *smol("molecule_generation", TEXTS, SMILES),
        *smol("name_conversion-i2s", NAMES_OF, SMILES),
        *smol("name_conversion-s2f", SMILES, FORMULAS),
        *smol("property_prediction-esol", SMILES, [f"{n * -0.07:.2f}" for n in range(N)]),
        *smol("property_prediction-bbbp", SMILES, ["Yes", "No"] * (N // 2)),
        *smol("property_prediction-sider", SMILES, ["No", "Yes"] * (N // 2), target="eye disorders"),
    ]


def check_smol(written: Written, index: Index) -> None:
    found = records(written)
    assert {name for name, record in found.items() if record is None} == {
        *("forward", "retrosynthesis", "captioning", "generation"),
    }
    ends = {name: (record["source"], record["target"]) for name, record in found.items() if record}
    assert ends == {
        "name_conversion-i2s": ("text", "chemistry"),
        "name_conversion-s2f": ("chemistry", "formula"),
        "property_prediction-esol": ("chemistry", "number"),
        "property_prediction-bbbp": ("chemistry", "label"),
        "property_prediction-sider": ("chemistry", "label"),
    }
    sider = found["property_prediction-sider"]
    assert sider
    assert "{target}" in sider["prompt"]
    assert set(index.rows("train")) == set(found)


def test_smolinstruct_as_json_lines_has_one_task_per_value_of_its_task_column(tmp_path: Path) -> None:
    rows = smol_rows()
    for n, row in enumerate(rows):
        row["split"] = {0: "test", 1: "validation"}.get(n % N % 10, "train")
    check_smol(*made(tmp_path, jsonl(tmp_path / "smol.jsonl", rows)))


def test_smolinstruct_as_a_saved_dataset_is_split_by_its_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = smol_rows()
    parts = {"train": rows, "validation": rows[::9], "test": rows[4::9]}
    datasets.DatasetDict({name: datasets.Dataset.from_list(part) for name, part in parts.items()}).save_to_disk(
        tmp_path / "smol"
    )
    written = write_recipe([str(tmp_path / "smol")], tmp_path / "recipe.toml")
    assert [(s.hub_split, s.split) for s in written.sources] == [
        ("train", "train"),
        ("validation", "valid"),
        ("test", "test"),
    ]


def test_mol_instructions_as_arrays_are_split_by_their_metadata(tmp_path: Path) -> None:
    def rows(task: str, left: Sequence[str], right: Sequence[str], asked: Sequence[str]) -> list[dict[str, object]]:
        return [
            {
                "instruction": asked[n % len(asked)],
                "input": a,
                "output": b,
                "metadata": {"task": task, "split": "test" if n % 10 == 0 else "train"},
            }
            for n, (a, b) in enumerate(zip(left, right, strict=True))
        ]

    properties = ["What is the HOMO energy?", "Give the LUMO energy."]
    numbers = [f"{n * 0.013:.4f}" for n in range(N)]
    paths = [
        jsonl(tmp_path / f"{name}.json", rows(task, *sides), array=True)
        for name, task, *sides in (
            (
                "molecular_description",
                "molecular description generation",
                SMILES,
                TEXTS,
                ["Describe it.", "What is it?"],
            ),
            ("forward", "forward reaction prediction", REACTANTS, PRODUCTS, ["Predict it."]),
            ("property", "property prediction", SMILES, numbers, properties),
        )
    ]
    written, index = made(tmp_path, *paths)
    found = records(written)
    assert (found["captioning"], found["forward"]) == (None, None)
    assert found["property_prediction"]
    assert found["property_prediction"]["prompt"] == "{instruction} {source}"
    assert all(source.split_column == "metadata.split" for source in written.sources)
    assert set(index.rows("test")) == {"captioning", "forward", "property_prediction"}


def test_lpm_24_as_parquet_leaves_out_the_split_that_repeats_the_others(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "LPM-24_train"
    (folder / "data").mkdir(parents=True)
    rows = [{"molecule": s, "caption": t, "properties": [["a"]]} for s, t in zip(SMILES, TEXTS, strict=True)]
    for name, part in (("train", rows), ("split_train", rows[:40]), ("split_valid", rows[40:])):
        datasets.Dataset.from_list(part).to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    configured = "".join(f"  - split: {n}\n    path: data/{n}-*\n" for n in ("train", "split_train", "split_valid"))
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{configured}---\n")
    written, index = made(tmp_path, str(folder))
    assert [(s.hub_split, s.split) for s in written.sources] == [("split_train", "train"), ("split_valid", "valid")]
    assert records(written) == {"captioning": None, "generation": None}
    assert written.groups[0].proposal.unused["properties"] == "lists"
    assert index.rows("valid")["captioning"] == 20


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
    "form", ["{n} °C", "{n},000", ">{n}", "{n}%", "-{n},5", "{n}-{n}2 °C", "{n} ± 0.5", "{n} kcal/mol", "~ {n}e-7 M"]
)
def test_numbers_that_are_written_otherwise_are_named_as_such(form: str) -> None:
    column = examine("x", [form.format(n=n) for n in range(1, 60)])
    assert column.kind == "other"
    assert "write plain numbers" in column.why


def test_labels_that_differ_only_in_case_are_named() -> None:
    assert "'Active', 'active' differ only in case" in examine("x", ["Active", "active", "no"] * 20).why


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


def test_a_file_without_names_of_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("".join(f"{smiles},{n}.5\n" for n, smiles in enumerate(SMILES)))
    with pytest.raises(UserError, match="its first line"):
        write_recipe([str(path)], tmp_path / "recipe.toml")


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


@pytest.mark.data
def test_the_files_of_moleculenet_and_the_names_build_together(tmp_path: Path) -> None:
    if not TASKS.is_dir():
        pytest.skip("no tasks folder beside the real data")
    files = ("moleculenet/esol.csv", "moleculenet/bbbp.csv", "moleculenet/clintox.csv", "names/names.csv")
    written, index = made(tmp_path, *(str(TASKS / name) for name in files))
    assert {name: (record or {})["target"] for name, record in records(written).items()} == {
        "measured_log_solubility": "number",
        "p_np": "label",
        "clintox": "labels",
        "smiles_to_iupac": "name",
        "iupac_to_smiles": "chemistry",
        "smiles_to_formula": "formula",
    }
    assert index.rows("train")["smiles_to_iupac"] == 499
    assert index.rows("test")["smiles_to_iupac"] == 100
    assert not any(leaks["dropped"] for leaks in index.report["leaked"].values())
