"""docs/analysis.md: its commands run, and its tables of MolT5 and Text+Chem T5 are the published ones."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from planted_sweep import SIZES, TRAINING, results_of, write_result
from real_files import REAL_DATA
from typer.testing import CliRunner

from bigchem.evaluate.published import published
from bigchem.model.presets import num_parameters, shape
from bigchem.sweep.scores.records import Results
from bigchem.sweep.scores.results import load
from bigchem.tasks import shipped

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "analysis.md").read_text()
FENCES = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [command for text in FENCES for command in text.splitlines()]
PUBLISHED_FILES = REAL_DATA.parent / "published"
VOCABULARIES = REAL_DATA.parent / "vocab"


def call(command: str) -> str:
    """Runs a command of the page in this process."""
    from bigchem.cli.main import app

    words = shlex.split(command)
    assert words[0] == "bigchem"
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception!r}"
    return done.stdout


def test_the_pages_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    for size in SIZES:
        for mixture in (("captioning", "generation"), ("captioning",), ("generation",)):
            for seed in (0, 1):
                write_result(tmp_path / "runs" / "demo", results_of(size, mixture, seed, noise=0.01))
    for lr in (3e-4, 6e-4):
        training = TRAINING | {"lr": lr, "sweep": {"axes": {"optimizer.lr": lr}}}
        content = results_of(SIZES[0], ("captioning", "generation")) | {"run": f"lr{lr}", "training": training}
        write_result(tmp_path / "runs" / "lr", content)
    (tmp_path / "recipe.toml").write_text('[tasks.solubility]\nsource = "chemistry"\ntarget = "number"\n')
    table = "parameters,task,regime,metric,value,low,high\n10,solubility,together,rmse,1,0.9,1.1\n"
    (tmp_path / "scores.csv").write_text(f"{table}10,solubility,alone,rmse,2,1.9,2.1\n")
    commands = [command for command in COMMANDS if "published/" not in command]
    assert len(commands) == 7
    outputs = [call(command) for command in commands]
    assert "For cross-domain tasks (captioning and generation), " in outputs[1]
    assert json.loads(outputs[2])["headline"]["generation"] == "levenshtein"
    assert (tmp_path / "board" / "together").is_dir()
    assert "no metric was measured both ways at two sizes" in outputs[3]
    assert "6 seeds find" in outputs[5]
    assert "Scores against optimizer.lr" in (tmp_path / "report" / "report.html").read_text()
    beyond = (tmp_path / "molt5" / "beyond.csv").read_text()
    assert "captioning,bleu4,alone,3000000000.0,False,linear,0.5" in beyond


Numbers = dict[tuple[str, str, str], float]
"""Model, task and metric -> value."""


def numbers(read: Results) -> Numbers:
    return {(s.run.name, s.task, s.metric): s.estimate.value for s in read.scores if s.estimate is not None}


def published_numbers(model: str, origin: str) -> Numbers:
    """Of the models whose names begin so."""
    return {
        (row.model, task, metric): value
        for task, rows in published().items()
        for row in rows
        for metric, value in row.values.items()
        if row.model.startswith(model) and row.origin == origin and value is not None
    }


def test_the_tables_of_molt5_are_the_published_scores() -> None:
    read = load([ROOT / "docs" / "tables" / name for name in ("molt5-small.csv", "molt5-base-large.csv")])
    assert numbers(read) == published_numbers("MolT5-", "printed")
    for run in read.runs:
        size = run.name.removeprefix("MolT5-")
        assert run.parameters == num_parameters(shape(f"t5-v1_1-{size}", 32128))


def test_the_tables_of_text_chem_t5_are_the_published_scores_of_one_model_for_five_tasks() -> None:
    tables = [load([ROOT / "docs" / "tables" / f"text-chem-t5-base{kind}.csv"]) for kind in ("", "-augmented")]
    assert numbers(tables[0]) | numbers(tables[1]) == published_numbers("Text+Chem T5-base", "printed")
    for run in (run for read in tables for run in read.runs):
        assert run.regime == "together"
        assert run.mixture.keys() == set(shipped().scored)
        assert run.parameters == num_parameters(shape("t5-base"))


def test_the_table_of_rescored_predictions_agrees_with_molt5s_own_scripts() -> None:
    found = numbers(load([ROOT / "docs" / "tables" / "rescored-molt5-small.csv"]))
    assert found == pytest.approx(published_numbers("MolT5-small", "rescored"), abs=4e-4)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not PUBLISHED_FILES.is_dir() or not VOCABULARIES.is_dir(), reason="no published predictions")
def test_molt5_is_drawn_from_its_published_predictions_and_scores(tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    shutil.copytree(PUBLISHED_FILES, tmp_path / "published")
    (table,) = re.findall(r"^```csv\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "published" / "molt5-small.csv").write_text(table)
    with tarfile.open(VOCABULARIES / "nltk_wordnet.tgz") as archive:
        archive.extractall(tmp_path / "nltk", filter="data")
    environment = {"BIGCHEM_SCIBERT": str(VOCABULARIES / "scibert"), "NLTK_DATA": str(tmp_path / "nltk")}
    (command,) = [command for command in COMMANDS if "published/" in command]
    words = [sys.executable, "-m", *shlex.split(command), "--json"]
    done = subprocess.run(
        words, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    bleu = {r["parameters"]: r["value"] for r in read["metrics"] if (r["task"], r["metric"]) == ("captioning", "bleu4")}
    assert bleu == pytest.approx({76_961_152: 0.4449, 247_577_856: 0.457, 783_150_080: 0.508}, abs=1e-4)
    assert len([r for r in read["fits"] if r["metric"] == "exact"]) == 1
    assert (tmp_path / "molt5" / "figures" / "generation-exact.svg").is_file()
