"""Predictions for the user's inputs: equal to evaluate's, with probabilities; what is read and printed."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import T5ForConditionalGeneration
from typer.testing import CliRunner

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress, tables
from bigchem.chemistry import REPAIRS
from bigchem.cli.main import app
from bigchem.config import EvaluateConfig
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import PAD, Tokenizer
from bigchem.evaluate.generation.generate import part_of, predict, read_lines
from bigchem.evaluate.generation.inputs import lines_of, read_inputs, table, to_json
from bigchem.evaluate.generation.predictor import Prediction, Predictor
from bigchem.evaluate.prediction_files.tables import read_examples
from bigchem.tasks import Task, TaskConfig, shipped

CONFIG = EvaluateConfig(num_beams=3, num_return=2, max_new_tokens=10, batch_tokens=200)


@pytest.fixture(scope="module")
def predictor(model_dir: Path) -> Predictor:
    return Predictor(model_dir)


def test_texts_are_predicted_as_evaluate_predicts_rows(
    predictor: Predictor, small_data: Path, model_dir: Path, tmp_path: Path
) -> None:
    """The prompt is added, and predictions come in the order of the texts, not of their lengths."""
    rows = Data(small_data).split("test", "forward")
    part = part_of(rows, 5, 512, 200, 0, 1)
    predict(model_dir, rows, part, CONFIG, tmp_path / "p", torch.device("cpu"), Progress(quiet=True))
    lines = sorted(read_lines(tmp_path / "p"), key=lambda line: line["row"])
    made = predictor.predict("forward", [line["source"] for line in lines], CONFIG)
    assert [[one.text for one in ranked] for ranked in made] == [line["predictions"] for line in lines]


def test_scores_are_those_of_transformers_beam_search(predictor: Predictor, model_dir: Path) -> None:
    model, tokenizer = T5ForConditionalGeneration.from_pretrained(model_dir).eval(), Tokenizer.load(model_dir)
    texts = ["CCO.CC(=O)O", "C"]
    made = predictor.predict("forward", texts, CONFIG)
    for text, ranked in zip(texts, made, strict=True):
        ids = torch.tensor(tokenizer.encode_batch([shipped()["forward"].prompt + text]))
        output = model.generate(
            input_ids=ids, num_beams=3, num_return_sequences=2, max_new_tokens=10, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        assert [one.score for one in ranked] == pytest.approx(output.sequences_scores.tolist(), abs=1e-4)
        for one, row in zip(ranked, output.sequences, strict=True):
            labels = row[1:][row[1:] != PAD][None]
            with torch.no_grad():
                loss = model(input_ids=ids, labels=labels).loss
            assert one.log_probability == pytest.approx(-float(loss) * labels.numel(), rel=1e-4)


def test_molecules_are_marked_and_texts_are_not(predictor: Predictor) -> None:
    greedy = EvaluateConfig(max_new_tokens=3)
    assert isinstance(predictor.predict("generation", ["An acid."], greedy)[0][0].valid, bool)
    assert predictor.predict("captioning", ["CCO"], greedy)[0][0].valid is None


def test_a_long_input_is_cut_and_it_is_said(model_dir: Path) -> None:
    progress = Progress()
    with progress.console.capture() as output:
        made = Predictor(model_dir, max_source_tokens=20).predict("captioning", ["C", "CCO" * 40], CONFIG, progress)
    assert "inputs cut at 20 tokens: 1, the first is number 2" in output.get()
    assert len(made) == 2


def test_sources_are_as_long_as_in_training_where_the_model_says_so(model_dir: Path, tmp_path: Path) -> None:
    assert Predictor(model_dir).max_source_tokens == 512
    model = shutil.copytree(model_dir, tmp_path / "model")
    record = {"data": {"fingerprint": "f"}, "recipe": {"max_source_tokens": 30}}
    (model / "provenance.json").write_text(json.dumps(record))
    predictor = Predictor(model)
    assert predictor.max_source_tokens == 30
    assert predictor.num_cut("captioning", ["C", "CCO" * 40]) == 1
    (model / "provenance.json").write_text(json.dumps({**record, "recipe": None}))
    assert Predictor(model).max_source_tokens == 512


def test_a_damaged_model_and_too_few_beams_are_told_with_what_to_do(model_dir: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(model_dir, tmp_path / "model")
    os.truncate(damaged / "model.safetensors", 1000)
    with pytest.raises(UserError, match=r"model: cannot read model.safetensors: .*\nnext: "):
        Predictor(damaged)
    (damaged / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model: holds no weights: .*\nnext: "):
        Predictor(damaged)
    (damaged / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json: not JSON: .*\nnext: "):
        Predictor(damaged)
    few = CliRunner().invoke(app, ["predict", str(damaged), "--task", "forward", "C", "-k", "5", "--num-beams", "2"])
    assert str(few.exception).splitlines()[1:] == ["next: --num-beams 5, or omit it"]
    for path, message in ((damaged / "config.json", "a file, not a folder"), (tmp_path / "none", "no such folder")):
        for command in (["evaluate", str(path)], ["predict", str(path), "--task", "forward", "C"]):
            refused = CliRunner().invoke(app, command)
            assert str(refused.exception).startswith(f"{path}: {message}\nnext: ")


def test_inputs_are_arguments_lines_and_json_lines() -> None:
    lines = ["CCO\n", "\n", '{"source": "CN", "target": "t", "id": 7}\r\n']
    assert list(read_inputs(["N", "-"], lines, shipped()["captioning"])) == [
        {"source": "N"},
        {"source": "CCO"},
        {"source": "CN", "target": "t", "id": 7},
    ]
    with pytest.raises(UserError, match="stdin:2: not JSON"):
        list(read_inputs(["-"], ["C", '{"source": '], shipped()["captioning"]))
    with pytest.raises(UserError, match="'source' must be a string"):
        list(read_inputs(['{"source": 1}'], [], shipped()["captioning"]))
    with pytest.raises(UserError, match="stdin:1: the key 'source' twice in one object\nnext: keep one"):
        list(read_inputs(["-"], ['{"source": "C", "source": "N"}'], shipped()["captioning"]))


@pytest.mark.parametrize("name", ["predictions", "log_probabilities", "scores", "valid"])
def test_a_field_that_predict_writes_is_refused_by_its_line(name: str) -> None:
    with pytest.raises(UserError, match=f"stdin:2: the field '{name}' is what predict writes\nnext: rename"):
        list(read_inputs(["-"], ["C", json.dumps({"source": "C", name: 1})], shipped()["captioning"]))


def test_labels_may_be_a_field_unless_the_task_has_labels() -> None:
    line, fields = '{"source": "C", "labels": "mine"}', {"source": "chemistry", "target": "label"}
    assert list(read_inputs([line], [], shipped()["captioning"])) == [{"source": "C", "labels": "mine"}]
    toxic = Task.of("toxic", TaskConfig.model_validate({**fields, "labels": ["no", "yes"]}))
    with pytest.raises(UserError, match="the field 'labels' is what predict writes"):
        list(read_inputs([line], [], toxic))


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(UserError, match="not JSON: Exceeds the limit"):
        list(read_inputs(['{"source": "CCO", "id": ' + "9" * 5000 + "}"], [], shipped()["captioning"]))


@pytest.mark.parametrize("line", [b"CC\xffO", b'{"source": "CCO", "id": "\\ud800"}', b'{"source": "CC", "id": "\xe9"}'])
@pytest.mark.parametrize("task", ["captioning", "generation"])
def test_what_is_not_utf8_is_refused_by_its_line(line: bytes, task: str) -> None:
    lines = lines_of(io.BytesIO(b"\xef\xbb\xbfCCO\n" + line))
    records = read_inputs(["-"], lines, shipped()[task])
    assert next(records) == {"source": "CCO"}
    with pytest.raises(UserError, match="stdin:2: not UTF-8"):
        next(records)


@pytest.mark.parametrize("text", ["", " ", "c1ccnc1", "ethanol", "C?C", "CC>>CC"])
def test_what_is_no_molecule_is_refused_before_it_is_predicted(text: str) -> None:
    with pytest.raises(UserError, match="next: captioning takes SMILES"):
        list(read_inputs([text], [], shipped()["captioning"]))


def test_inputs_are_repaired_as_data_are_and_the_repairs_counted() -> None:
    noticed: Counter[str] = Counter()
    lines = ["CCO ethanol", "CCO |$a;b;c$|", r"F/C=C\\F", "C C O"]
    read = list(read_inputs(["-"], lines, shipped()["captioning"], noticed))
    assert [record["source"] for record in read] == ["CCO", "CCO", r"F/C=C\F", "CCO"]
    assert sorted(noticed) == sorted(REPAIRS[name] for name in ("name", "extension", "backslashes", "joined"))


@pytest.mark.parametrize("task", ["forward", "captioning"])
def test_atom_maps_of_an_input_are_removed_and_counted(task: str) -> None:
    noticed: Counter[str] = Counter()
    (record,) = read_inputs(["[CH3:1][OH:2].[CH3:3][CH2:4][Br:5]"], [], shipped()[task], noticed)
    assert record == {"source": "CO.CCBr"}
    assert noticed == {"atom maps removed": 1}


def test_a_text_may_begin_with_a_brace() -> None:
    text = "{4-[(E)-styryl]phenyl}methanol was added."
    assert list(read_inputs([text], [], shipped()["actions"])) == [{"source": text}]


def test_the_table_marks_molecules_and_shows_brackets_as_they_are() -> None:
    ranked = [Prediction("[Na+]", -1.5, -0.5, True), Prediction("C(", -2.0, -1.0, False)]
    console = tables()
    with console.capture() as shown:
        console.print(table([{"source": "[H]"}], [ranked]))
    assert all(text in shown.get() for text in ("[H]", "[Na+]", "-1.50", "-0.500", "valid", "invalid"))


def test_its_json_lines_are_what_score_reads(tmp_path: Path) -> None:
    ranked = [Prediction("CC", -1.5, -0.5, True), Prediction("é", -2.0, -1.0, False)]
    (tmp_path / "p.jsonl").write_text(
        to_json({"source": "s", "target": "t", "id": 7}, ranked, shipped()["forward"]) + "\n"
    )
    assert read_examples(tmp_path / "p.jsonl")[:3] == (["s"], [["t"]], [["CC", "é"]])
    line = json.loads((tmp_path / "p.jsonl").read_text())
    assert (line["id"], line["log_probabilities"], line["scores"]) == (7, [-1.5, -2.0], [-0.5, -1.0])
    assert line["valid"] == [True, False]


def test_the_command_reads_stdin_and_prints_a_line_for_each_input(model_dir: Path) -> None:
    command = [sys.executable, "-m", "bigchem", "predict", str(model_dir), "--task", "forward", "-k", "2"]
    options = ["--max-new-tokens", "4", "--json", "-"]
    done = subprocess.run(
        [*command, *options], input='CCO\n{"source": "CC", "id": 1}\n', capture_output=True, text=True, check=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["source"], len(line["predictions"])) for line in lines] == [("CCO", 2), ("CC", 2)]
    assert lines[1]["id"] == 1
