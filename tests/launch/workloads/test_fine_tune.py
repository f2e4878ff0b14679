"""`bigchem fine-tune`: settings follow from the data; a file becomes a model in one command, and that model another."""

from __future__ import annotations

import json
from pathlib import Path

import distributed
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.init.write_recipe import write_recipe
from bigchem.data.storage.shards import Data
from bigchem.launch.workloads import fine_tune
from bigchem.launch.workloads.fine_tune import Figures

MOLECULES = [f"{'C' * n}{end}" for n in range(1, 12) for end in ("O", "N", "Cl", "c1ccccc1", "C(=O)O")]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Molecules and a number that follows from their length."""
    file = tmp_path / "boiling.csv"
    rows = (f"{smiles},{20 * smiles.count('C') + 7.25}\n" for smiles in MOLECULES)
    file.write_text("smiles,boiling_point\n" + "".join(rows))
    return file


@given(
    st.integers(1, 10**7),
    st.integers(10, 300),
    st.integers(2, 2000),
    st.integers(2, 2000),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=200)
def test_any_size_of_data_gives_settings_that_a_run_accepts(
    rows: int, tokens_each: int, source: int, target: int, gpu: bool, held_out: bool
) -> None:
    found = Figures(rows, rows * tokens_each, (source, target), held_out, held_out, texts=held_out)
    config = fine_tune.configured(found, "data", Path("out"), preset="sweep-1m", init_from=None, gpu=gpu)
    assert config.schedule.warmup_steps < config.train.steps
    assert config.data.max_source_tokens >= min(source, fine_tune.MAX_TOKENS)
    epochs = config.train.steps * config.data.global_tokens / found.tokens
    assert epochs >= 0.99 * fine_tune.EPOCHS
    assert (config.validation.every > 0) == held_out


@pytest.mark.thorough  # docs/own-data.md's commands do the same, in tests/test_docs.py
def test_a_file_becomes_a_model_that_predicts_and_that_model_another(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "first"
    few = ("--set", "train.steps=4", "--set", "schedule.warmup_steps=1", "--set", "evaluate.bootstrap=20")
    done = distributed.bigchem("fine-tune", str(table), "--out", str(out), "--json", *few, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["chosen"]["evaluate_on"] == "test"
    assert {row["metric"] for row in made["metrics"]} >= {"rmse", "spearman", "valid_numbers"}
    record = json.loads((out / "run" / "model" / "tasks.json").read_text())["boiling_point"]
    assert (record["source"], record["target"]) == ("chemistry", "number")
    asked = distributed.bigchem("predict", str(out / "run"), "--task", "boiling_point", "--json", "CCO", cwd=tmp_path)
    assert json.loads(asked.stdout)["source"] == "CCO"
    more = ("--from", str(out / "run" / "model"), "--out", str(tmp_path / "second"), "--dry-run", "--json")
    again = distributed.bigchem("fine-tune", str(out / "recipe.toml"), *more, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["chosen"]["lr"] == fine_tune.LR["pretrained"]
    tokenizers = [
        (folder / "data" / "tokenizer" / "tokenizer.json").read_bytes() for folder in (out, tmp_path / "second")
    ]
    assert tokenizers[0] == tokenizers[1]


def test_a_recipe_of_an_earlier_command_is_used_as_it_is(table: Path, tmp_path: Path) -> None:
    quiet, out = Progress(quiet=True), tmp_path / "out"
    first = fine_tune.prepare_data([str(table)], out, None, quiet)
    recipe = out / "recipe.toml"
    recipe.write_text(
        recipe.read_text().replace("boiling_point]", "temperature]").replace('["boiling_point"]', '["temperature"]')
    )
    second = fine_tune.prepare_data([str(table)], out, None, quiet)
    assert (list(first.index.rows("train")), list(second.index.rows("train"))) == (["boiling_point"], ["temperature"])
    assert second.index.rows("train")["temperature"] > len(MOLECULES), "few rows get other spellings"
    assert Data(out / "data").tasks["temperature"].target_domain == "number"


def test_a_file_without_anything_to_predict_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id\n1\n2\n3\n")
    with pytest.raises(UserError):
        fine_tune.prepare_data([str(tmp_path / "x.csv")], tmp_path / "out", None, Progress(quiet=True))


def test_an_unknown_metric_is_refused_before_the_data_are_built(table: Path, tmp_path: Path) -> None:
    quiet, recipe = Progress(quiet=True), tmp_path / "mine.toml"
    write_recipe([str(table)], recipe)
    recipe.write_text(recipe.read_text().replace("[tasks.boiling_point]", '[tasks.boiling_point]\nmetrics = ["rmze"]'))
    with pytest.raises(UserError, match="unknown metric 'rmze'"):
        fine_tune.prepare_data([str(recipe)], tmp_path / "out", None, quiet)
    assert not (tmp_path / "out").exists()


def test_files_with_nothing_but_molecules_are_refused_in_words(tmp_path: Path) -> None:
    file, quiet = tmp_path / "melting.csv", Progress(quiet=True)
    rows = (f"{smiles},{20 + n} °C\n" for n, smiles in enumerate(MOLECULES))
    file.write_text("smiles,melting\n" + "".join(rows), encoding="utf-8")
    with pytest.raises(UserError, match="write plain numbers") as refusal:
        fine_tune.prepare_data([str(file)], tmp_path / "out", None, quiet)
    assert "spans" not in str(refusal.value)
    assert not (tmp_path / "out").exists()
    write_recipe([str(file)], tmp_path / "unlabelled.toml")
    data = fine_tune.prepare_data([str(tmp_path / "unlabelled.toml")], tmp_path / "out", None, quiet)
    with pytest.raises(UserError, match="nothing to predict: only smiles_spans"):
        fine_tune.figures(data)


def test_repeating_the_command_does_not_build_again_and_a_run_keeps_its_data(table: Path, tmp_path: Path) -> None:
    quiet, out = Progress(quiet=True), tmp_path / "out"
    data = fine_tune.prepare_data([str(table)], out, None, quiet)
    index = out / "data" / "index.json"
    before = index.stat().st_mtime_ns
    (out / "run").mkdir()
    fine_tune.prepare_data([str(table)], out, None, quiet)
    assert index.stat().st_mtime_ns == before
    recipe = out / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('prompt = "Predict', 'prompt = "Guess'))
    with pytest.raises(UserError, match="was started on other data"):
        fine_tune.prepare_data([str(table)], out, None, quiet)
    assert Data(out / "data").index.fingerprint == data.index.fingerprint


def test_a_model_exported_before_tasks_were_records_brings_its_vocabulary(tmp_path: Path, table: Path) -> None:
    quiet = Progress(quiet=True)
    data = fine_tune.prepare_data([str(table)], tmp_path / "first", None, quiet)
    old = tmp_path / "old"
    old.mkdir()
    for file in data.tokenizer_dir.iterdir():
        (old / file.name).write_bytes(file.read_bytes())
    (old / "bigchem.json").write_text("{}")
    again = fine_tune.prepare_data([str(table)], tmp_path / "second", str(old), quiet)
    assert (again.tokenizer_dir / "tokenizer.json").read_bytes() == (old / "tokenizer.json").read_bytes()
