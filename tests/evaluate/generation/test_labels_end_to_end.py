"""From a table with labels to their scores: evaluate, score, predict and the page agree."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from transformers import T5Config, T5ForConditionalGeneration
from typer.testing import CliRunner

from bigchem.base.progress import Progress
from bigchem.bench.metrics import labelling
from bigchem.cli.main import app
from bigchem.config import EvaluateConfig
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import load_recipe
from bigchem.data.sources.base import Row
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.evaluate.generation.generate import part_of, predict, read_lines
from bigchem.evaluate.generation.predictor import Predictor
from bigchem.evaluate.run import evaluate
from bigchem.evaluate.serve import page
from bigchem.evaluate.serve.drawing import Artist
from bigchem.evaluate.subject import Subject
from bigchem.model.presets import shape, to_hf_config
from bigchem.tasks import tasks_of, write_tasks

CPU, QUIET = torch.device("cpu"), Progress(quiet=True)
CONFIG = EvaluateConfig(max_new_tokens=4, bootstrap=20, batch_tokens=200)
RECIPE = """max_lossy = 0.05

[tasks.barrier]
source = "chemistry"
target = "label"
prompt = "Does it cross? "
labels = ["no", "yes", "perhaps"]

[tasks.trials]
source = "chemistry"
target = "labels"
labels = ["toxic", "approved"]

[[sources]]
format = "csv"
tasks = ["barrier"]
path = "table.csv"
columns = {{ source = "smiles", target = "crosses" }}
{split}

[[sources]]
format = "csv"
tasks = ["trials"]
path = "table.csv"
columns = {{ source = "smiles" }}
{split}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, corpus: list[Row]) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    molecules = list(dict.fromkeys(row.source for row in corpus if row.task == "captioning"))[:90]
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["smiles", "crosses", "toxic", "approved"])
        for number, molecule in enumerate(molecules):
            crosses = ["no", "yes", "perhaps"][number % 3]
            table.writerow([molecule, crosses, "" if number % 5 == 0 else number % 2, int("C" in molecule[:1])])
    split = 'split_by = "molecule"\ntest_fraction = 0.4'
    (folder / "recipe.toml").write_text(RECIPE.format(split=split).replace("table.csv", str(folder / "table.csv")))
    build(load_recipe(folder / "recipe.toml"), folder / "data", QUIET, workers=1)
    return folder / "data"


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(1)
    config = to_hf_config(shape("sweep-0.2m", Tokenizer.load(data / "tokenizer").vocab_size), 0.0)
    T5ForConditionalGeneration(T5Config(**config)).save_pretrained(folder)
    shutil.copytree(data / "tokenizer", folder, dirs_exist_ok=True)
    write_tasks(folder, Data(data).tasks)
    return folder


@pytest.fixture(scope="module")
def results(data: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    subject = Subject(model, Data(data), ("barrier", "trials"), tmp_path_factory.mktemp("results"), 512, {"run": "x"})
    return evaluate(subject, CONFIG, progress=QUIET)


def areas(table: list[dict[str, Any]], task: str) -> dict[str, dict[str, Any]]:
    return {m["metric"]: m for m in table if m["task"] == task and m["metric"] in ("roc_auc", "pr_auc")}


def test_evaluate_gives_the_areas_of_scikit_learn_with_intervals(results: Path) -> None:
    metrics = json.loads(results.read_text())["metrics"]
    lines = read_lines(results.parent / "predictions" / "barrier.jsonl")
    given = np.array([line["label_log_probabilities"] for line in lines])
    odds = [given[:, n] - np.logaddexp.reduce(np.delete(given, n, axis=1), axis=1) for n in range(3)]
    right = [[line["target"] == label for line in lines] for label in ("no", "yes", "perhaps")]
    found = areas(metrics, "barrier")
    assert found["roc_auc"]["value"] == pytest.approx(np.mean(list(map(roc_auc_score, right, odds))))
    assert found["pr_auc"]["value"] == pytest.approx(np.mean(list(map(average_precision_score, right, odds))))
    lines = read_lines(results.parent / "predictions" / "trials.jsonl")
    trials = [
        roc_auc_score(*zip(*((f"{name}=1" in line["target"], own) for line, own in known), strict=True))
        for n, name in enumerate(("toxic", "approved"))
        for known in [[(line, line["label_log_probabilities"][n]) for line in lines if name in line["target"]]]
    ]
    assert any("toxic" not in line["target"] for line in lines)
    assert areas(metrics, "trials")["roc_auc"]["value"] == pytest.approx(np.mean(trials))
    for task in ("barrier", "trials"):
        for area in areas(metrics, task).values():
            assert area["low"] < area["value"] < area["high"]


def test_a_part_predicted_again_has_the_same_scores(data: Path, model: Path, results: Path, tmp_path: Path) -> None:
    """Lines without scores are damaged: they are predicted again."""
    rows = Data(data).split("test", "barrier")
    part = part_of(rows, 0, 512, CONFIG.batch_tokens, 0, 1)
    whole = {line["row"]: line for line in read_lines(results.parent / "predictions" / "barrier.jsonl")}
    for line in whole.values():
        del line["loss_and_tokens"]  # added when the parts are merged
    assert len(part.batches) > 1
    first = [{**whole[row]} for row in part.batches[0]]
    del first[0]["label_log_probabilities"]
    (tmp_path / "again").write_text("".join(json.dumps(line) + "\n" for line in first))
    predict(model, rows, part, CONFIG, tmp_path / "again", CPU, QUIET)
    assert {line["row"]: line for line in read_lines(tmp_path / "again")} == whole


def test_predict_gives_every_label_the_probability_that_evaluate_gives(model: Path, results: Path) -> None:
    for task, labels in (("barrier", ["no", "yes", "perhaps"]), ("trials", ["toxic", "approved"])):
        lines = read_lines(results.parent / "predictions" / f"{task}.jsonl")[:5]
        command = ["predict", str(model), "--task", task, "--max-new-tokens", "3"]
        sources = [line["source"] for line in lines]
        printed = CliRunner().invoke(app, [*command, "--json", *sources]).stdout.splitlines()
        for line, made in zip(lines, map(json.loads, printed), strict=True):
            assert list(made["labels"]) == labels
            assert list(made["labels"].values()) == made["label_log_probabilities"]
            assert made["label_log_probabilities"] == pytest.approx(line["label_log_probabilities"], abs=1e-4)
        shown = CliRunner().invoke(app, [*command, sources[0]]).stdout
        own = np.array(lines[0]["label_log_probabilities"])
        for label, share in zip(labels, np.exp(own) if task == "barrier" else 1 / (1 + np.exp(-own)), strict=True):
            assert any(label in row and f"{share:.3f}" in row for row in shown.splitlines())


def test_what_predict_prints_has_areas_by_score(model: Path, results: Path, tmp_path: Path) -> None:
    lines = read_lines(results.parent / "predictions" / "trials.jsonl")
    given = "".join(json.dumps({"source": line["source"], "target": line["target"]}) + "\n" for line in lines)
    command = ["predict", str(model), "--task", "trials", "--max-new-tokens", "3", "--json", "-"]
    (tmp_path / "made.jsonl").write_text(CliRunner().invoke(app, command, input=given).stdout)
    (tmp_path / "tasks.toml").write_text('[tasks.trials]\nsource = "chemistry"\ntarget = "labels"\n')
    with (tmp_path / "tasks.toml").open("a") as file:
        file.write('labels = ["toxic", "approved"]\n')
    command = ["score", str(tmp_path / "made.jsonl"), "--task", "trials", "--tasks", str(tmp_path / "tasks.toml")]
    scored = json.loads(CliRunner().invoke(app, [*command, "--json", "--bootstrap", "0"]).stdout)
    expected = areas(json.loads(results.read_text())["metrics"], "trials")
    for name, area in areas(scored, "trials").items():
        assert area["value"] == pytest.approx(expected[name]["value"])


def test_the_page_shows_the_probability_of_each_label(model: Path) -> None:
    predictor = Predictor(model)
    made = page.answer(predictor, Artist(), "barrier", "CCO", beams=1, shown=1)[1]
    (own,) = predictor.label_scores("barrier", ["CCO"], CONFIG)
    assert tasks_of(model)["barrier"].labels == ("no", "yes", "perhaps")
    for label, score in zip(("no", "yes", "perhaps"), own, strict=True):
        assert f"<td>{label}</td><td>{np.exp(score):.3f}</td>" in made


def test_the_benchmark_times_scores_beside_beam_search_on_the_same_rows(data: Path, model: Path) -> None:
    figures = labelling(model, Data(data), 5, EvaluateConfig(num_beams=2, max_new_tokens=3), turns=1)
    names = [figure.name for figure in figures]
    assert names[1:3] == ["barrier, 5 rows: scores of 3 labels", "barrier, 5 rows: beam search, 2 beams"]
    assert figures[3].value == figures[2].value / figures[1].value
    assert len(figures) == 10
