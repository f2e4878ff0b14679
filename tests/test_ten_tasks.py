"""One mixture of eleven tasks, six of them records over real files, through every stage, without a line of Python.

Data in three splits, training, evaluation, export, prediction; and a sweep over two sizes, together and alone.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import distributed
import pytest
from real_files import REAL_DATA

from bigchem.data.storage.shards import Data

TABLES = REAL_DATA.parent / "tasks"
pytestmark = [pytest.mark.data, pytest.mark.skipif(not TABLES.is_dir(), reason="needs the files of further tasks")]

OWN = {
    "solubility": ("chemistry", "number", {"decimals": 2, "headline": "spearman"}),
    "permeability": ("chemistry", "label", {"labels": ["0", "1"]}),
    "toxicity": ("chemistry", "labels", {"labels": ["FDA_APPROVED", "CT_TOX"]}),
    "name_to_smiles": ("text", "chemistry", {}),
    "smiles_to_name": ("chemistry", "name", {}),
    "smiles_to_formula": ("chemistry", "formula", {}),
}
COLUMNS = {
    "solubility": ("moleculenet/esol.csv", {"source": "smiles", "target": "measured_log_solubility"}),
    "permeability": ("moleculenet/bbbp.csv", {"source": "smiles", "target": "p_np"}),
    "toxicity": ("moleculenet/clintox.csv", {"source": "smiles"}),
    "name_to_smiles": ("names/names.csv", {"source": "iupac", "target": "smiles"}),
    "smiles_to_name": ("names/names.csv", {"source": "smiles", "target": "iupac"}),
    "smiles_to_formula": ("names/names.csv", {"source": "smiles", "target": "formula"}),
}
RUN = """
name = "ten"
[model]
preset = "sweep-0.2m"
dropout = 0.0
[data]
path = "data"
global_tokens = 2048
micro_tokens = 1024
max_source_tokens = 256
max_target_tokens = 256
[train]
steps = 12
precision = "fp32"
[schedule]
warmup_steps = 2
[evaluate]
max_rows = 20
max_new_tokens = 12
bootstrap = 20
"""
SWEEP = """
name = "sizes"
base = "run.toml"
sizes = ["sweep-0.2m", "sweep-1m"]
[mixtures.together]
[mixtures.solubility]
weights = { solubility = 1 }
"""


def toml_of(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_of(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


def recipe(limit: int) -> str:
    parts = ["[tokenizer]\nvocab_size = 400\n"]
    for name, (source, target, more) in OWN.items():
        record = {"source": source, "target": target, "prompt": f"{name}: ", **more}
        parts.append(f"[tasks.{name}]\n" + "".join(f"{key} = {toml_of(value)}\n" for key, value in record.items()))
    for name, (file, columns) in COLUMNS.items():
        split = {"split_column": "label"} if "names" in file else {"test_fraction": 0.2, "split_by": "molecule"}
        cut = {} if "names" in file else {"limit": limit}
        table = {"format": "csv", "path": str(TABLES / file), "columns": columns, "tasks": [name], **split, **cut}
        parts.append("[[sources]]\n" + "".join(f"{key} = {toml_of(value)}\n" for key, value in table.items()))
    for split, rows in (("train", 500), ("test", 50)):
        parts.append(f'[[sources]]\nformat = "synthetic"\nsplit = "{split}"\nrows = {rows}\nseed = {rows}\n')
    return "\n".join(parts)


def run(*words: str, cwd: Path) -> str:
    done = distributed.bigchem(*words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of all eleven tasks."""
    folder = tmp_path_factory.mktemp("ten")
    (folder / "recipe.toml").write_text(recipe(250))
    (folder / "run.toml").write_text(RUN)
    (folder / "sweep.toml").write_text(SWEEP)
    run("data", "build", "recipe.toml", "data", cwd=folder)
    return folder


def test_a_molecule_of_one_table_is_in_the_same_split_of_all(place: Path) -> None:
    data = Data(place / "data")
    assert len(data.index.rows("train")) == len(data.index.rows("test")) == 11
    leaked = data.index.report["leaked"]
    assert all(leaked[name]["dropped"] == 0 for name in ("solubility", "permeability", "toxicity"))


def test_a_further_task_changes_no_shard_of_the_others(place: Path) -> None:
    """With a vocabulary that is not trained anew, and a task whose molecules are not held out."""
    folder = place / "data" / "tokenizer"
    text = recipe(250).replace("vocab_size = 400", f'folder = "{folder}"')
    more = (
        '\n[tasks.weight]\nsource = "chemistry"\ntarget = "number"\nprompt = "weight: "\n[[sources]]\nformat = "csv"\n'
    )
    more += f'path = "{TABLES}/moleculenet/esol.csv"\nsplit = "train"\nlimit = 100\ntasks = ["weight"]\n'
    more += 'columns = { source = "smiles", target = "Molecular Weight" }\n'
    (place / "again.toml").write_text(text + more)
    run("data", "build", "again.toml", "again", cwd=place)
    before, after = Data(place / "data").index, Data(place / "again").index
    for split, tasks in before.shards.items():
        assert tasks == {name: shards for name, shards in after.shards[split].items() if name != "weight"}
    assert "weight" in after.shards["train"]


@pytest.mark.thorough
def test_eleven_tasks_are_trained_evaluated_exported_and_predicted_together(place: Path) -> None:
    run("train", "run.toml", cwd=place)
    folder = place / "runs" / "ten"
    results = json.loads((folder / "results" / "results.json").read_text())
    assert list(results["tasks"]) == [*list(Data(place / "data").index.rows("test"))]
    scores: dict[tuple[str, str], Any] = {(row["task"], row["metric"]): row for row in results["metrics"]}
    for task, record in results["tasks"].items():
        assert (task, record["headline"]) in scores
        assert scores[task, "loss"]["n"] > 0
    assert scores["solubility", "rmse"]["low"] is not None or scores["solubility", "rmse"]["note"]
    assert json.loads((folder / "model" / "tasks.json").read_text()) == results["tasks"]
    card = (folder / "model" / "README.md").read_text()
    assert all(f"| {task} |" in card for task in OWN)
    made = run("predict", str(folder), "--task", "smiles_to_formula", "--json", "CCO", cwd=place)
    assert len(json.loads(made)["predictions"]) == 1
    words = ("score", str(folder / "results" / "predictions" / "solubility.jsonl"), "--task", "solubility", "--json")
    found = {row["metric"]: row["value"] for row in json.loads(run(*words, "--tasks", "recipe.toml", cwd=place))}
    assert found["mae"] == scores["solubility", "mae"]["value"]


@pytest.mark.thorough
def test_a_sweep_over_two_sizes_together_and_alone_is_reported(place: Path) -> None:
    run("sweep", "submit", "sweep.toml", "--wait", cwd=place)
    run("sweep", "report", "runs/sizes", "--out", "report", cwd=place)
    rows = list(csv.DictReader((place / "report" / "gain.csv").open(encoding="utf-8")))
    assert {row["task"] for row in rows} == {"solubility"}
    assert {row["metric"] for row in rows} >= {"loss"}
    assert all(name in (place / "report" / "report.html").read_text(encoding="utf-8") for name in OWN)
