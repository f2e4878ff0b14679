from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from runs import transformers_loss
from transformers import T5ForConditionalGeneration
from typer.testing import CliRunner

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.cli.main import app
from bigchem.config import EvaluateConfig
from bigchem.data.storage.shards import Data, TaskRows
from bigchem.data.text.tokenizer import EOS
from bigchem.evaluate import run
from bigchem.evaluate.generation import generate
from bigchem.evaluate.generation.generate import (
    Part,
    beam_search,
    decoded,
    load_generator,
    padded,
    part_of,
    precision_on,
    predict,
    read_lines,
    rounds,
    token_loss,
)
from bigchem.evaluate.generation.predictor import Predictor
from bigchem.evaluate.generation.round_trip import products
from bigchem.evaluate.run import begin, evaluate, parts_left, predict_part, refuse_to_discard, score_parts
from bigchem.evaluate.score import score_file
from bigchem.evaluate.subject import Subject
from bigchem.launch.workloads.evaluate import Request, evaluate_here, prepare
from bigchem.tasks import shipped

QUIET = Progress(quiet=True)
CPU = torch.device("cpu")


def config(**fields: object) -> EvaluateConfig:
    return EvaluateConfig.model_validate({"max_new_tokens": 12, "batch_tokens": 200, "bootstrap": 0, **fields})


def part(
    rows: TaskRows, max_rows: int, number: int = 0, parts: int = 1, cap: int = 512, batch_tokens: int = 200
) -> Part:
    return part_of(rows, max_rows, cap, batch_tokens, number, parts)


def test_batches_hold_every_row_once_within_the_budget(small_data: Path) -> None:
    rows = Data(small_data).split("train", "actions")
    whole = part(rows, 0, batch_tokens=600)
    assert sorted(row for batch in whole.batches.values() for row in batch) == list(range(len(rows)))
    assert len(whole.batches) > 5
    for batch in whole.batches.values():
        width = max(len(whole.source(rows, row)) for row in batch)
        assert len(batch) == 1 or width * len(batch) <= 600


def test_parts_share_the_batches_whatever_their_number(small_data: Path) -> None:
    rows = Data(small_data).split("test", "forward")
    whole = part(rows, 8).batches
    for parts in (2, 3, 20):
        dealt = [part(rows, 8, number, parts).batches for number in range(parts)]
        assert {number: batch for own in dealt for number, batch in own.items()} == whole
        assert sum(map(len, dealt)) == len(whole)


def test_a_source_over_the_cap_is_cut_and_keeps_its_end(small_data: Path) -> None:
    rows = Data(small_data).split("test", "actions")
    whole = part(rows, 0, cap=9)
    cut = whole.source(rows, whole.batches[0][0])
    assert len(cut) == 9
    assert cut[-1] == 1


def test_an_interrupted_prediction_goes_on_and_gives_the_same(
    small_data: Path, model_dir: Path, tmp_path: Path
) -> None:
    rows = Data(small_data).split("test", "captioning")
    six = part(rows, 6)
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    predict(model_dir, rows, six, config(), whole, CPU, QUIET)
    lines = whole.read_text().splitlines(keepends=True)
    broken.write_text("".join(lines[:2]) + lines[2][: len(lines[2]) // 2])
    predict(model_dir, rows, six, config(), broken, CPU, QUIET)
    assert {line["row"]: line for line in read_lines(broken)} == {line["row"]: line for line in read_lines(whole)}


def test_k_best_lists_are_kept_best_first(small_data: Path, model_dir: Path, tmp_path: Path) -> None:
    rows = Data(small_data).split("test", "forward")
    predict(model_dir, rows, part(rows, 3), config(num_beams=3, num_return=2), tmp_path / "x", CPU, QUIET)
    assert [len(line["predictions"]) for line in read_lines(tmp_path / "x")] == [2, 2, 2]


def test_beams_are_those_of_transformers_as_it_loads_the_model(small_data: Path, model_dir: Path) -> None:
    """Although the cross-attention cache is not reordered with the beams."""
    rows = Data(small_data).split("test", "forward")
    ids = padded([part(rows, 0).source(rows, row) for row in range(6)], CPU)
    beams = config(num_beams=4, num_return=3)
    plain = T5ForConditionalGeneration.from_pretrained(model_dir).eval()
    expected = decoded(plain, ids, 4, 12)[:, :3].flatten(0, 1)
    assert torch.equal(beam_search(load_generator(model_dir, CPU), ids, beams), expected)
    assert len({tuple(row) for row in expected.tolist()}) > 6  # the beams were reordered


def test_a_search_in_rounds_ends_in_the_limit_and_each_is_worth_its_repetition() -> None:
    assert rounds(512) == [32, 96, 512]
    assert rounds(256) == [32, 96, 256]
    assert rounds(63) == [63]
    assert rounds(1) == [1]


def until_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS)] if EOS in ids else ids


@pytest.mark.parametrize("num_beams", [1, 4])
def test_rows_that_end_early_and_rows_that_never_do_are_as_in_one_search(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, num_beams: int
) -> None:
    monkeypatch.setattr(generate, "FIRST_TOKENS", 2)
    calls: list[int] = []
    monkeypatch.setattr(generate, "decoded", lambda *given: calls.append(len(given[1])) or decoded(*given))
    model = load_generator(model_dir, CPU)
    pull = torch.zeros(model.config.vocab_size)
    model.lm_head.register_forward_hook(lambda module, given, logits: logits + pull)
    random = torch.Generator().manual_seed(0)
    ids = padded([torch.randint(2, 200, (n,), generator=random).tolist() for n in range(1, 13)], CPU)
    for pull[EOS] in torch.arange(0.0, 6.0, 0.5):
        expected = decoded(model, ids, num_beams, 24)[:, : 2 if num_beams > 1 else 1].flatten(0, 1)
        found = beam_search(model, ids, config(num_beams=num_beams, num_return=min(2, num_beams), max_new_tokens=24))
        assert [until_end(row) for row in found.tolist()] == [until_end(row) for row in expected.tolist()]
    assert any(0 < later < len(ids) for later in calls)


def test_a_killed_evaluation_given_again_has_the_results_of_an_undisturbed_one(
    small_data: Path, model_dir: Path, tmp_path: Path
) -> None:
    """SIGKILL of the command in the middle of a task; a batch is a row or two."""
    overrides = ("max_new_tokens=50", "batch_tokens=90", "bootstrap=10")
    asked = Request(model_dir, str(small_data), ("forward", "captioning"), tmp_path / "killed", overrides)
    sets = [word for override in overrides for word in ("--set", override)]
    tasks = [word for task in asked.tasks for word in ("--task", task)]
    command = [sys.executable, "-m", "bigchem", "evaluate", str(model_dir), "--data", str(small_data)]
    process = subprocess.Popen([*command, "--out", str(asked.out), *tasks, *sets], stderr=subprocess.DEVNULL)
    file = tmp_path / "killed" / "predictions" / "forward.rank0.jsonl"
    while not file.is_file() or file.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, "evaluate has ended"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert 3 <= len(file.read_text().splitlines()) < len(Data(small_data).split("test", "forward"))
    before = file.read_bytes()
    results = evaluate_here(asked)
    whole = evaluate_here(replace(asked, out=tmp_path / "whole"))
    assert file.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    for name in ("results.json", "table.md", "predictions/forward.jsonl", "predictions/captioning.jsonl"):
        assert (results.parent / name).read_bytes() == (whole.parent / name).read_bytes()


def test_token_loss_is_transformers_loss(small_data: Path, model_dir: Path) -> None:
    rows = Data(small_data).split("test", "generation")
    losses = token_loss(model_dir, rows, part(rows, 0, batch_tokens=300), CPU).values()
    total, count = sum(sum(loss.rows) for loss in losses), sum(sum(loss.tokens) for loss in losses)
    pairs = [rows.tokens(row) for row in range(len(rows))]
    expected = transformers_loss(model_dir, [s.tolist() for s, _ in pairs], [t.tolist() for _, t in pairs])
    assert total / count == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_each_row_is_its_own(small_data: Path, model_dir: Path) -> None:
    rows = Data(small_data).split("test", "forward")
    whole = part(rows, 3)
    (loss,) = token_loss(model_dir, rows, whole, CPU).values()
    (batch,) = whole.batches.values()
    for row, total, count in zip(batch, loss.rows, loss.tokens, strict=True):
        (alone,) = token_loss(model_dir, rows, Part({0: [row]}, 512), CPU).values()
        assert (total, count) == (pytest.approx(alone.rows[0], rel=1e-5), len(rows.tokens(row)[1]))


def test_predictions_carry_the_loss_of_their_examples(small_data: Path, model_dir: Path, tmp_path: Path) -> None:
    about = {"run": "x", "mixture": {"forward": 1.0}, "seed": 0, "step": 1, "tokens": 2}
    subject = Subject(model_dir, Data(small_data), ("forward",), tmp_path, 512, about)
    recorded = json.loads(evaluate(subject, config(bootstrap=50), progress=QUIET).read_text())["metrics"][0]
    file = tmp_path / "predictions" / "forward.jsonl"
    found = asdict(score_file(shipped()["forward"], file, bootstrap=50)[0])
    assert found == {**recorded, "interval": "bootstrap"}
    rows = Data(small_data).split("test", "forward")
    for line in read_lines(file)[:3]:
        source, target = (ids.tolist() for ids in rows.tokens(line["row"]))
        expected = transformers_loss(model_dir, [source], [target]) * len(target)
        assert line["loss_and_tokens"] == [pytest.approx(expected, rel=1e-4), len(target)]


def test_results_say_what_was_measured_and_a_changed_setting_starts_anew(
    small_data: Path, model_dir: Path, tmp_path: Path
) -> None:
    about = {"run": "x", "mixture": {"forward": 1.0}, "seed": 0, "step": 1, "tokens": 2}
    subject = Subject(model_dir, Data(small_data), ("forward",), tmp_path, 512, about)
    first = json.loads(evaluate(subject, config(max_rows=4), progress=QUIET).read_text())
    assert first["schema"] == 1
    assert first["decoding"] == {"num_beams": 1, "num_return": 1, "max_new_tokens": 12}
    assert first["data_fingerprint"] == subject.data.index.fingerprint
    assert {(m["metric"], m["n"]) for m in first["metrics"]} >= {("top1", 4), ("validity", 4)}
    second = json.loads(evaluate(subject, config(max_rows=2), progress=QUIET).read_text())
    assert {m["n"] for m in second["metrics"] if m["metric"] == "top1"} == {2}


def test_the_precision_is_stated_and_two_are_not_mixed(small_data: Path, model_dir: Path, tmp_path: Path) -> None:
    about = {"run": "x", "mixture": {"forward": 1.0}, "seed": 0, "step": 1, "tokens": 2}
    subject = Subject(model_dir, Data(small_data), ("forward",), tmp_path / "evaluated", 512, about)
    found = json.loads(evaluate(subject, config(max_rows=4, precision="bf16"), progress=QUIET).read_text())
    assert found["precision"] == "bf16"
    with pytest.raises(UserError, match="precision: bf16 -> auto"):
        refuse_to_discard(subject, config(max_rows=4))
    other = replace(subject, out=tmp_path / "other")
    assert json.loads(evaluate(other, config(max_rows=4), progress=QUIET).read_text())["precision"] == "fp32"
    generated = load_generator(model_dir, CPU, "bf16")
    assert {p.dtype for p in generated.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("device", "wanted", "precision"),
    [("cuda", "auto", "bf16"), ("cpu", "auto", "fp32"), ("cuda", "tf32", "tf32"), ("cpu", "bf16", "bf16")],
)
def test_auto_is_bf16_on_gpus_alone(device: str, wanted: str, precision: str) -> None:
    assert precision_on(torch.device(device), wanted) == precision


def test_a_cpu_has_no_tf32() -> None:
    with pytest.raises(UserError, match="a CPU has no TF32"):
        precision_on(CPU, "tf32")


def test_long_rows_are_evaluated_all_the_same_and_cut_sources_are_counted(
    small_data: Path, model_dir: Path, tmp_path: Path
) -> None:
    about = {"run": "x", "mixture": {"forward": 1.0}, "seed": 0, "step": 1, "tokens": 2}
    data = Data(small_data)
    lengths = data.split("test", "forward").lengths[:, 0]
    cap = int(sorted(lengths)[len(lengths) // 2])
    subject = Subject(model_dir, data, ("forward",), tmp_path, cap, about)
    results = json.loads(evaluate(subject, config(), progress=QUIET).read_text())
    assert {m["n"] for m in results["metrics"] if m["metric"] == "top1"} == {len(lengths)}
    assert results["max_source_tokens"] == cap
    assert 0 < results["sources_cut"]["forward"] == int((lengths > cap).sum()) < len(lengths)


def test_three_parts_give_what_one_process_gives(small_data: Path, model_dir: Path, tmp_path: Path) -> None:
    """Predictions and scores are equal, the loss bit for bit; missing parts are an error, not a partial score."""
    about = {"run": "x", "mixture": {"forward": 1.0, "captioning": 1.0}, "seed": 0, "step": 1, "tokens": 2}
    tasks = ("captioning", "forward")
    one, three = (Subject(model_dir, Data(small_data), tasks, tmp_path / name, 512, about) for name in ("one", "three"))
    evaluate(one, config(), progress=QUIET)
    assert parts_left(three, config(), 3) == [0, 1, 2]
    begin(three, config())
    for number in (2, 0):
        predict_part(three, config(), number, 3, QUIET)
    assert parts_left(three, config(), 3) == [1]
    with pytest.raises(UserError, match=r"captioning: \d+ of \d+ predictions are missing"):
        score_parts(three, config())
    predict_part(three, config(), 1, 3, QUIET)
    score_parts(three, config())
    for name in ("results.json", "table.md", "predictions/captioning.jsonl", "predictions/forward.jsonl"):
        assert (three.out / name).read_bytes() == (one.out / name).read_bytes()


def test_the_round_trip_asks_the_forward_model_once(small_data: Path, model_dir: Path, tmp_path: Path) -> None:
    """The model itself is the forward model; predictions from before a kill are kept."""
    about = {"run": "x", "mixture": {"retrosynthesis": 1.0}, "seed": 0, "step": 1, "tokens": 2}
    subject = Subject(model_dir, Data(small_data), ("retrosynthesis",), tmp_path, 512, about, forward_model=model_dir)
    results = evaluate(subject, config(max_rows=4), progress=QUIET)
    table = json.loads(results.read_text())
    scores = {m["metric"]: m for m in table["metrics"]}
    assert scores["round_trip"]["value"] == 0.0
    assert scores["round_trip"]["n"] == scores["round_trip_nostereo"]["n"] == 4
    assert table["forward_model"] == table["model"]["sha256"]
    (file,) = tmp_path.glob("predictions/round_trip.*.jsonl")
    lines = read_lines(file)
    best = {line["predictions"][0] for line in read_lines(tmp_path / "predictions" / "retrosynthesis.jsonl")}
    assert {line["source"] for line in lines} == best
    made = Predictor(model_dir).predict("forward", [line["source"] for line in lines], config())
    assert [line["prediction"] for line in lines] == [ranked[0].text for ranked in made]
    saved = json.dumps({**lines[0], "prediction": "C"})
    file.write_text(saved + "\n" + saved[:9])  # a saved line, and one cut off by a kill
    evaluate(subject, config(max_rows=4), progress=QUIET)
    assert {line["source"] for line in read_lines(file)} == best
    assert read_lines(file)[0]["prediction"] == "C"
    scored = {m["metric"]: m["value"] for m in json.loads(results.read_text())["metrics"]}
    both = replace(subject, tasks=("forward",), forward_model=None)
    again = json.loads(evaluate(both, config(max_rows=4), progress=QUIET).read_text())
    assert again["forward_model"] == table["forward_model"]
    assert {m["metric"]: m["value"] for m in again["metrics"] if m["task"] == "retrosynthesis"} == scored


def test_two_inverses_have_their_own_products(small_data: Path, model_dir: Path, tmp_path: Path) -> None:
    subject = Subject(model_dir, Data(small_data), ("retrosynthesis",), tmp_path, 512, {}, forward_model=model_dir)
    (tmp_path / "predictions").mkdir()
    for inverse in ("forward", "captioning"):
        task = replace(shipped()["retrosynthesis"], inverse=inverse)
        expected = Predictor(model_dir).predict(inverse, ["CCO"], config())[0][0].text
        assert run._products(subject, config(), task, [["CCO"]]) == [[expected]]
    assert len(list(tmp_path.glob("predictions/round_trip.*.jsonl"))) == 2


def test_the_round_trip_says_what_it_cuts(model_dir: Path, tmp_path: Path) -> None:
    model = shutil.copytree(model_dir, tmp_path / "model")
    record = {"data": {"fingerprint": "f"}, "recipe": {"max_source_tokens": 20}}
    (model / "provenance.json").write_text(json.dumps(record))
    progress = Progress()
    with progress.console.capture() as said:
        products(model, "forward", [["CCO", "CCO" * 40]], config(), None, progress)
    assert "forward model, forward: 1 of 2 predicted lists of reactants cut at 20 tokens" in said.get()


def test_another_command_keeps_what_is_there_or_is_refused(small_data: Path, model_dir: Path, tmp_path: Path) -> None:
    overrides = ("max_rows=3", "max_new_tokens=4", "bootstrap=0")
    asked = Request(model_dir, str(small_data), ("captioning",), tmp_path / "out", overrides)
    evaluate_here(asked)
    results = evaluate_here(replace(asked, tasks=("forward",)))
    table = results.read_bytes()
    whole = evaluate_here(replace(asked, tasks=("forward", "captioning"), out=tmp_path / "whole"))
    assert table == whole.read_bytes()
    assert (results.parent / "table.md").read_bytes() == (whole.parent / "table.md").read_bytes()
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json*")}
    other = replace(asked, overrides=(*overrides, "num_beams=3", "split=valid"))
    for command in (evaluate_here, prepare):
        with pytest.raises(UserError, match=r"split: test -> valid, num_beams: 1 -> 3\n.*--out ANOTHER"):
            command(other)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json*")} == before
    command = ["evaluate", str(model_dir), "--data", str(small_data), "--out", str(asked.out), "--task", "forward"]
    command += [word for override in overrides for word in ("--set", override)]
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout) == json.loads(table)
    refused = CliRunner().invoke(app, [*command, "--split", "valid"])
    assert "split: test -> valid" in str(refused.exception)
    (results.parent / "predictions" / "identity.json").write_text("{")
    with pytest.raises(UserError, match=r"identity.json: damaged: .*\n.*remove .*predictions"):
        evaluate_here(asked)
