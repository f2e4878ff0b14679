"""What a task's record does to its data: prompts drawn per row and epoch, fields of the row, and which side leaks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.chemistry import Reading
from bigchem.config import DataConfig
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import load_recipe
from bigchem.data.loader import Loader
from bigchem.data.sources.base import RowError
from bigchem.data.sources.rows import make_row
from bigchem.data.sources.sides import label, labels, molecules, number, read_source, read_target
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.tasks import Task, TaskConfig, shipped

PROMPTS = ["How soluble is it? ", "At {T} K, is <S> {source} </S> soluble?", "Solubility of {source} in {solvent}: "]
RECIPE = """
task_files = ["tasks.toml"]
[tokenizer]
vocab_size = 300
[[sources]]
format = "csv"
path = "rows.csv"
columns = { source = "smiles", target = "y" }
tasks = ["solubility"]
split_column = "split"
"""
RECORD = f'[tasks.solubility]\nsource = "chemistry"\ntarget = "number"\ndecimals = 1\nprompt = {json.dumps(PROMPTS)}\n'
CONFIG = DataConfig(global_tokens=1500, micro_tokens=1000, max_source_tokens=200, max_target_tokens=30)


def task(source: str, target: str, **more: object) -> Task:
    return Task.of("x", TaskConfig.model_validate({"source": source, "target": target, **more}))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("records")
    rows = [
        f"{'C' * n}O,{n / 3},{270 + n},{'water' if n % 2 else 'ether'},{'test' if n > 18 else 'train'}"
        for n in range(1, 21)
    ]
    (folder / "rows.csv").write_text("smiles,y,T,solvent,split\n" + "\n".join(rows) + "\nCN,1,,water,train\n")
    (folder / "tasks.toml").write_text(RECORD)
    (folder / "recipe.toml").write_text(RECIPE)
    build(load_recipe(folder / "recipe.toml"), folder / "data", Progress(quiet=True), workers=1)
    return Data(folder / "data")


def asked(data: Data, loader: Loader, position: int) -> dict[tuple[int, int], str]:
    """(row, epoch) -> the prompted source, of the examples of a step."""
    step, tokenizer = loader.plan.steps.at(position), Tokenizer.load(data.tokenizer_dir)
    found = {}
    for i in range(len(step.rows)):
        batch = loader.read(step, np.array([i]))
        assert (len(batch.source_ids), len(batch.target_ids)) == tuple(step.lengths[i].tolist())
        found[int(step.rows[i]), int(step.epochs[i])] = tokenizer.decode_batch([batch.source_ids.tolist()])[0]
    return found


def test_a_row_without_a_field_that_its_prompt_names_is_rejected_with_the_column(data: Data) -> None:
    assert data.index.rows("train") == {"solubility": 18}
    assert data.index.report["sources"][0]["reasons"] == {"a missing text: column 'T', which the prompt names": 1}


def test_each_row_and_epoch_draws_a_prompt_whatever_came_before(data: Data) -> None:
    loader = Loader(data, CONFIG, 7, 0, 1)
    rows: dict[tuple[int, int], str] = {}
    position = 0
    for _ in range(12):
        rows |= asked(data, loader, position)
        position = loader.plan.steps.at(position).stop
    stored = data.split("train", "solubility")
    for (row, epoch), text in rows.items():
        _, source, _ = stored.text(int(loader.plan.rows[stored.about.id].stored(np.array([row]))[0]))
        n = source.count("C")
        fields = {"T": str(270 + n), "solvent": "water" if n % 2 else "ether"}
        prompts = [stored.about.prompted(source, fields, number) for number in range(3)]
        assert text in prompts, epoch
    seen = {row: {text for (other, _), text in rows.items() if other == row} for row, _ in rows}
    assert max(map(len, seen.values())) == 3, "epochs draw anew"
    jumped = asked(data, Loader(data, CONFIG, 7, 0, 1), position)
    assert jumped == asked(data, loader, position), "a resumed run draws the same"
    other = asked(data, Loader(data, CONFIG, 8, 0, 1), 0)
    assert any(rows.get(key) not in (None, text) for key, text in other.items()), "another seed draws others"


def test_evaluation_reads_each_row_once_with_its_first_prompt(data: Data) -> None:
    rows = data.split("test", "solubility")
    assert len(rows) == 2
    tokenizer = Tokenizer.load(data.tokenizer_dir)
    assert tokenizer.decode_batch([rows.tokens(0)[0].tolist()])[0] == f"{PROMPTS[0]}{'C' * 19}O"
    assert [rows.text(row)[2] for row in range(2)] == ["6.3", "6.7"]


def test_a_folder_of_a_version_without_records_has_the_tasks_that_ship(small_data: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(small_data, old)
    table = json.loads((old / "index.json").read_text())
    del table["tasks"]
    (old / "index.json").write_text(json.dumps(table))
    assert Data(old).index.fingerprint == Data(small_data).index.fingerprint
    assert Data(old).tasks == shipped()


@pytest.mark.parametrize(
    ("about", "source", "target", "compared"),
    [
        (task("chemistry", "number"), "CCO.Cl", "1", "CCO~Cl"),
        (task("text", "chemistry"), "ethanol", "CCO", "CCO"),
        (task("chemistry", "chemistry"), "CCO", "CCN", "CCO.CCN"),
        (task("chemistry", "reactants"), "CCO", "C.CO", "CCO"),
        (task("reactants", "chemistry"), "C.CO", "CCO", "CCO"),
        (task("reaction", "number"), "CC.O>[Pd]>CCO", "1", "CCO"),
        (task("reaction", "number"), "N.Cl[Pt]Cl>>[NH3]->[Pt](Cl)Cl", "1", "[NH3]->[Pt](Cl)Cl"),
        (task("reactants", "reagents"), "CC.O", "[Pd]", None),
        (task("text", "text"), "a", "b", None),
        (task("protein", "number"), "MKV", "1", None),
    ],
)
def test_the_leak_filter_compares_molecules_and_products(about: Task, source: str, target: str, compared: str) -> None:
    assert molecules(about, source, target) == compared


@pytest.mark.parametrize(
    ("about", "text", "message"),
    [
        (task("reactants", "chemistry"), "CC.O>>CCO", "RDKit cannot read"),  # the answer is in it
        (task("reaction", "number"), "CC.O", "two '>' expected"),
        (task("reaction", "number"), ">>CCO", "without reactants"),
        (task("protein", "number"), "not a protein 7", "not a protein"),
        (task("chemistry", "number"), "C(", "RDKit cannot read"),
    ],
)
def test_a_source_that_is_not_of_its_domain_is_refused(about: Task, text: str, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read_source(about, text)


def test_targets_are_read_by_their_domain() -> None:
    assert [number("-0.004", 2), number("1e-3", 4), number(" 7.50 ", None), number("-3.145", 1)] == [
        "0.00",
        "0.0010",
        "7.50",
        "-3.1",
    ]
    assert [number("\N{MINUS SIGN}3.145", 1), number("\N{MINUS SIGN}3e-2", None)] == ["-3.1", "-3e-2"]
    assert read_target(task("chemistry", "number"), "\N{MINUS SIGN}2").repairs == ("minus",)
    for wrong in ("1,5", "1_000", "inf", "5 mg", "", ">95", "١"):
        with pytest.raises(RowError):
            number(wrong, 2)
    for missing in ("", "-", "–", "n/a", "..."):
        with pytest.raises(RowError, match="a missing text"):
            number(missing, 2)
    assert label("1.0", ("0", "1")).repairs == ("label",)
    assert label("Active", ("inactive", "active")).text == "active"
    for wrong in ("2", "", "nan", "yes"):
        with pytest.raises(RowError):
            label(wrong, ("0", "1"))
    several = task("chemistry", "labels", labels=["a", "b", "c"])
    assert labels({"c": "1.0", "a": "0", "b": ""}, several) == Reading("a=0; c=1", ("label",))
    assert labels({"c": "1", "a": "0", "b": "-"}, several).repairs == ()
    for wrong_values in ({"a": ""}, {"d": "1"}, {"a": "0.5"}, {"a": "+"}):
        with pytest.raises(RowError):
            labels(wrong_values, several)


def test_labels_in_one_text_are_pairs_and_each_name_stands_once() -> None:
    several = task("chemistry", "labels", labels=["A", "B"])
    assert read_target(several, "A = 1; B=0;").text == "A=1; B=0"
    assert read_target(several, "A=1; B=").text == "A=1"
    for wrong, message in (
        ("A=1; A=0", "a label with two values: 'A'"),
        ("A=1; B", "not NAME=VALUE: 'B'"),
        ("A=1=0", "A is neither 0 nor 1: '1=0'"),
        ("nan", "a missing text: 'nan'"),
        ("", "a missing text"),
    ):
        with pytest.raises(RowError, match=message):
            read_target(several, wrong)


def test_a_product_among_its_reactants_is_refused_and_a_molecule_that_is_changed_is_not() -> None:
    with pytest.raises(RowError, match="nothing reacts"):
        make_row(task("reactants", "chemistry"), "CCO.C", "OCC")
    assert make_row(task("chemistry", "chemistry"), "CCO", "CCO").target == "CCO"


def test_an_unknown_task_or_one_that_the_columns_cannot_give_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "tasks.toml").write_text(RECORD)
    file = tmp_path / "recipe.toml"
    for old, new, message in (
        ('["solubility"]', '["solublity"]', r"sources\[0\]: unknown task 'solublity'"),
        ('source = "smiles", target = "y"', 'smiles = "smiles", text = "y"', "gives no rows for task 'solubility'"),
    ):
        file.write_text(RECIPE.replace(old, new))
        with pytest.raises(UserError, match=message):
            load_recipe(file)
