"""A run without submitit: this process, or ranks that torchrun starts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from chaos import end_well, start
from hparams_tab import hparams_tab
from owners import owned
from runs import config_of
from typer.testing import CliRunner
from waiting import until

from bigchem.base import toml
from bigchem.cli.main import app
from bigchem.config import RunConfig
from bigchem.export import model_folder
from bigchem.launch import early_exit, job
from bigchem.launch.rendezvous.environment import Rendezvous
from bigchem.launch.rendezvous.members import AbsentRankError
from bigchem.launch.runs.status import run_status
from bigchem.launch.workloads.evaluate import Request, evaluate_here
from bigchem.run.ownership import Claim
from bigchem.run.state import read_state, write_state
from bigchem.train.health import peers

BIN = Path(sys.executable).parent


def torchrun(config: RunConfig, tmp_path: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "run.toml").write_text(toml.dump(config))
    sets = [word for override in overrides for word in ("--set", override)]
    command = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", "-m", "bigchem", "train"]
    return subprocess.run(
        [*command, tmp_path / "run.toml", *sets], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )


@pytest.fixture(scope="module")
def extended(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Two ranks: three steps with an evaluation, then, with the field changed, three more without.

    With torchrun's variables, but without torchrun, whose ranks take seconds to import what they need."""
    tmp_path = tmp_path_factory.mktemp("extended")
    evaluate = {"at_end": True, "max_rows": 3, "max_new_tokens": 8, "bootstrap": 0}
    command = {"command": ["tee", "-a", str(tmp_path / "messages.jsonl")]}
    config = config_of(tmp_path / "runs", small_data, "extended", train={"steps": 3}, evaluate=evaluate, notify=command)
    changed = {"train": {**config.train.model_dump(), "steps": 6}, "evaluate": {**evaluate, "at_end": False}}
    for one in (config, RunConfig.model_validate({**config.model_dump(), **changed})):
        end_well(one, start(one, 2))
    return config


def test_each_end_is_told_once(extended: RunConfig) -> None:
    told = extended.run_dir.parents[1] / "messages.jsonl"
    until(
        lambda: told.read_text().count('"event"') > 1, "no message of the second end"
    )  # the command may outlive ranks
    rows = [json.loads(line) for line in told.read_text().replace("}{", "}\n{").splitlines()]
    assert [(row["event"], row["state"], row["step"]) for row in rows] == [
        ("end", "finished", 3),
        ("end", "trained", 6),
    ]


def test_every_rank_follows_a_changed_configuration(extended: RunConfig) -> None:
    status = run_status(extended.run_dir)
    assert (status.state, status.step, status.steps, status.active) == ("trained", 6, 6, False)


def test_the_page_of_a_run_has_both_attempts_and_links_that_lead_to_files(extended: RunConfig) -> None:
    shown = CliRunner().invoke(app, ["show", str(extended.run_dir)])
    assert shown.exit_code == 0, shown.output
    text = (extended.run_dir / "report.html").read_text()
    attempts = text.split('<table id="attempts">')[1].split("</table>")[0]
    assert re.findall(r">(finished|trained)<", attempts) == ["finished", "trained"]
    assert re.findall(r"(\d) – (\d)", attempts) == [("0", "3"), ("3", "6")]
    assert "after step 3" in text.split("<h2>Scores</h2>")[1]
    links = re.findall(r'<a href="([^"]+)"', text)
    assert {"logs/rank1.log", "checkpoints/step_00000006", "results/table.md", "config.toml"} <= set(links)
    assert [link for link in links if not (extended.run_dir / link).exists()] == []
    assert not re.search(r"https?://|src=|url\((?!#)", text)


def scored_at(config: RunConfig, task: str) -> int:
    """The step of a task's loss on the test split, in TensorBoard's HParams tab."""
    (row,) = hparams_tab(config.run_dir / "tensorboard").rows.values()
    return row.metrics[f"test/{task}/loss"][1]


def test_a_model_of_an_older_step_is_not_evaluated_for_a_newer(extended: RunConfig) -> None:
    first = json.loads((extended.run_dir / "results" / "results.json").read_text())
    assert first["step"] == scored_at(extended, "forward") == 3
    again = json.loads(evaluate_here(Request(extended.run_dir, None, ("forward",), None, ("max_rows=2",))).read_text())
    assert again["step"] == scored_at(extended, "forward") == 6
    assert scored_at(extended, "captioning") == 3
    assert again["model"]["sha256"] != first["model"]["sha256"]


def test_a_run_folder_stands_for_its_model(extended: RunConfig, tmp_path: Path) -> None:
    """For evaluate's forward model, for predict, and for score's forward model."""
    run, settings = extended.run_dir, ("max_rows=2", "max_new_tokens=4")
    results = evaluate_here(Request(run, None, ("retrosynthesis",), tmp_path / "out", settings, forward_model=run))
    table = json.loads(results.read_text())
    assert table["forward_model"] == table["model"]["sha256"]
    found = {one["metric"]: one for one in table["metrics"]}
    assert found["round_trip"]["n"] == 2
    called = CliRunner().invoke(
        app, ["predict", str(run), "--task", "forward", "CCO", "--max-new-tokens", "4", "--json"]
    )
    assert json.loads(called.stdout)["source"] == "CCO"
    predictions = str(tmp_path / "out" / "predictions" / "retrosynthesis.jsonl")
    asked = ["score", predictions, "--task", "retrosynthesis", "--forward-model", str(run), "--json"]
    scored = {one["metric"]: one for one in json.loads(CliRunner().invoke(app, asked).stdout)}
    assert scored["round_trip"]["n"] == 2
    before = (run / "model" / "README.md").read_text()
    evaluate_here(Request(run / "model", extended.data.path, ("captioning",), None, settings))
    card = (run / "model" / "README.md").read_text()
    assert card != before  # the evaluation above has its own --out
    assert "| captioning | loss |" in card
    assert "Not evaluated: generation, forward" in card
    shutil.rmtree(run / "model")  # nothing is consolidated if the command is refused
    refused = CliRunner().invoke(app, ["score", predictions, "--task", "forward", "--forward-model", str(run)])
    assert "needs a task that predicts reactants and names its inverse, not forward" in str(refused.exception)
    assert not (run / "model").exists()


def test_the_model_card_says_how_to_generate(
    extended: RunConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = (model_folder(extended.run_dir) / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(extended.run_dir)
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102 - as its reader would
    assert found["outputs"].shape[-1] > 21  # transformers' own default
    assert capsys.readouterr().out.strip()
    page = (Path(__file__).parents[2] / "docs" / "consolidation.md").read_text()
    assert code in page  # of a folder `model` whose first task is captioning, as here


def _loses_a_peer(*arguments: object, **more: object) -> NoReturn:
    raise ConnectionResetError("by peer")


@pytest.mark.parametrize("where", ["start", "_run"])
def test_a_rank_lost_in_a_new_attempt_is_not_taken_for_that_of_the_last(
    extended: RunConfig, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """One process for all ranks: the group, and the end of the process, are stand-ins."""
    asked: list[bool] = []
    monkeypatch.setattr("bigchem.train.collectives.on_rank0", lambda function: function())
    monkeypatch.setattr(job, "start", lambda *arguments: torch.device("cpu"))
    monkeypatch.setattr(job, where, _loses_a_peer)
    monkeypatch.setattr(early_exit, "exit_now", sys.exit)
    monkeypatch.setattr(peers, "exit_now", sys.exit)
    monkeypatch.setattr(early_exit, "REASON_S", 0.0)
    monkeypatch.setattr(early_exit, "_exit_lock", threading.Lock())  # an exiting process never releases it
    before = read_state(extended.run_dir)
    try:
        write_state(extended.run_dir, "failed", step=6, steps=6, reason="rank 3 lost its connection", end="lost rank")
        if where == "_run":  # the ranks have met, so that rank 0 has begun the attempt
            write_state(extended.run_dir, "prepared", step=6, steps=6)
        with pytest.raises(SystemExit):
            job.run(
                extended.run_dir,
                Rendezvous(1, 2, 1, "127.0.0.1", 1, "test"),
                Claim(extended.run_dir),
                None,
                lambda lead: asked.append(lead) or 75,
            )
        after = read_state(extended.run_dir)
    finally:
        write_state(extended.run_dir, before.pop("state"), **{k: v for k, v in before.items() if k != "time"})
    assert asked == [True]
    assert (after["state"], after["rank"], after["step"]) == ("failed", 1, 6)
    assert after["reason"].startswith("rank 1 lost its connection")


def test_ranks_that_did_not_come_are_the_reason_and_the_job_is_started_again(
    extended: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*arguments: object) -> NoReturn:
        raise AbsentRankError("rank 3 of 4 (of node gpu02) did not come within 60 s", lead=True)

    asked: list[bool] = []
    monkeypatch.setattr(job, "start", start)
    monkeypatch.setattr(early_exit, "exit_now", sys.exit)
    before = read_state(extended.run_dir)
    try:
        with pytest.raises(SystemExit) as ended:
            job.run(
                extended.run_dir,
                Rendezvous(0, 4, 0, "127.0.0.1", 1, "test"),
                Claim(extended.run_dir),
                requeue=lambda lead: asked.append(lead) or 75,
            )
        after = read_state(extended.run_dir)
    finally:
        write_state(extended.run_dir, before.pop("state"), **{k: v for k, v in before.items() if k != "time"})
    assert (ended.value.code, asked) == (75, [True])
    assert (after["state"], after["step"], after["end"]) == ("failed", before["step"], "absent rank")
    assert after["reason"] == "rank 3 of 4 (of node gpu02) did not come within 60 s"


def test_an_error_of_rank_0_is_told_by_all_and_ends_them(extended: RunConfig, tmp_path: Path) -> None:
    owned(extended.run_dir, str(os.getpid()), "here")
    done = torchrun(extended, tmp_path, "train.steps=9")
    assert done.returncode != 0
    assert done.stderr.count("error: " + str(extended.run_dir)) == 2
    assert run_status(extended.run_dir).step == 6


def test_a_signal_that_follows_a_failure_leaves_its_word(tmp_path: Path) -> None:
    """srun ends all ranks when one has failed: rank 0 must not ask for a restart."""
    words = (
        "import os, signal, sys; from pathlib import Path;"
        "from bigchem.launch.early_exit import exit_on_signal_unless_training;"
        "exit_on_signal_unless_training(Path(sys.argv[1]), 0); os.kill(os.getpid(), signal.SIGTERM); signal.pause()"
    )
    codes = {}
    for name, word in {"failed": {"reason": "no such task", "end": "mistake"}, "prepared": {}}.items():
        (tmp_path / name).mkdir()
        write_state(tmp_path / name, name, step=3, **word)
        codes[name] = subprocess.run([sys.executable, "-c", words, str(tmp_path / name)], check=False).returncode
    assert codes == {"failed": 2, "prepared": 75}
    assert read_state(tmp_path / "failed")["reason"] == "no such task"
    assert read_state(tmp_path / "prepared")["end"] == "preempted"
