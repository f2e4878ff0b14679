"""`bigchem data init` on tables as published collections have them: the tasks are those that their authors meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from own_tables import FORMULAS, NAMES_OF, PRODUCTS, PROTEIN, REACTANTS, SMILES, TEXTS, N, jsonl, made, records, table
from real_files import REAL_DATA

from bigchem.data.init.write_recipe import Written, write_recipe
from bigchem.data.storage.index import Index

TASKS = REAL_DATA.parent / "tasks"


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
