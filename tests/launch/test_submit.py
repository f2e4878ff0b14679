"""Real runs through submitit's local executor: two processes each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from owners import job_of, owned
from runs import config_of
from transformers import T5ForConditionalGeneration

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.launch.cancel import cancel
from bigchem.launch.cluster import executors
from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.cluster.snapshot import snapshot
from bigchem.launch.runs.status import RunStatus, all_runs, run_status
from bigchem.launch.runs.status_table import to_json
from bigchem.launch.submit import Submitted, resume, submit, wait
from bigchem.launch.workloads.sweep import SweepRun, submit_sweep
from bigchem.model.presets import shape, to_hf_config
from bigchem.tasks import shipped

LOCAL = load_profile("local")
BIGCHEM = [sys.executable, "-m", "bigchem"]
EVALUATE = {"at_end": True, "max_rows": 6, "max_new_tokens": 20, "bootstrap": 20}


@pytest.fixture(scope="module")
def finished(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run that trained, consolidated and evaluated itself."""
    config = config_of(tmp_path_factory.mktemp("runs"), small_data, "whole", evaluate=EVALUATE)
    seen: list[RunStatus] = []
    status = wait(submit(config, LOCAL), seen.append)
    assert status.state == "finished"
    assert {"starting", "running"} & {row.state for row in seen}
    return config


def test_a_submitted_run_ends_with_a_model_and_results(finished: RunConfig) -> None:
    T5ForConditionalGeneration.from_pretrained(finished.run_dir / "model")
    results = json.loads((finished.run_dir / "results" / "results.json").read_text())
    found = {(row["task"], row["metric"]): row for row in results["metrics"]}
    assert {task for task, _ in found} == set(shipped().scored)
    assert found["forward", "top1"]["n"] == 6
    assert found["captioning", "loss"]["value"] > 0
    assert results["model"]["parameters"] == 219_120
    lines = (finished.run_dir / "results" / "predictions" / "forward.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == list(range(6))


def test_every_rank_has_its_log(finished: RunConfig) -> None:
    assert "step 6/6" in (finished.run_dir / "logs" / "rank0.log").read_text()
    assert (finished.run_dir / "logs" / "rank1.log").is_file()


def test_submitting_a_finished_run_does_nothing(finished: RunConfig) -> None:
    again = submit(finished, LOCAL)
    assert again.job is None
    assert "already finished" in again.note


def test_a_finished_run_with_another_model_is_not_overwritten(finished: RunConfig) -> None:
    other = finished.model_copy(update={"model": finished.model.model_copy(update={"preset": "sweep-1m"})})
    with pytest.raises(UserError, match=r"another model\.preset"):
        submit(other, LOCAL)


def test_a_run_cannot_be_made_shorter_than_it_is(finished: RunConfig) -> None:
    shorter = finished.model_copy(update={"train": finished.train.model_copy(update={"steps": 4})})
    with pytest.raises(UserError, match="at step 6 already"):
        submit(shorter, LOCAL)
    assert run_status(finished.run_dir).state == "finished"


def test_status_tells_state_step_loss_and_checkpoint(finished: RunConfig) -> None:
    (row,) = all_runs([Path(finished.runs)])
    assert (row.run, row.state, row.step, row.steps, row.checkpoint) == ("whole", "finished", 6, 6, "step_00000006")
    assert row.loss is not None
    assert not row.active
    assert json.loads(json.dumps(to_json([row])))[0]["state"] == "finished"


def test_a_run_lives_through_a_requeue_an_edited_source_a_cancellation_and_a_resume(
    small_data: Path, tmp_path: Path
) -> None:
    """Submitted from a checkout that is broken afterwards: the job runs the copy made at submission."""
    checkout = tmp_path / "checkout"
    shutil.copytree(snapshot(tmp_path / "copies"), checkout)
    config = config_of(tmp_path, small_data, "lived", train={"steps": 400}, checkpoint={"every": 1000})
    (checkout / "run.toml").write_text(toml.dump(config))
    bigchem(checkout, "submit", "run.toml", "--set", "evaluate.at_end=false", "--set-cluster", "tasks_per_node=1")
    pid = int(job_of(config.run_dir))
    follower = subprocess.Popen([*BIGCHEM, "logs", config.run_dir, "-f"], stdout=subprocess.PIPE, text=True)
    _wait_for(config, 3)
    assert "already running" in submit(config, LOCAL).note
    (checkout / "bigchem" / "launch" / "job.py").write_text("raise SystemExit('edited after submission')\n")
    for rank in _children(pid):
        os.kill(rank, signal.SIGUSR2)
    log = config.run_dir / "logs" / "rank0.log"
    _wait_until(lambda: log.read_text().count("from step") == 1)
    _wait_for(config, run_status(config.run_dir).step + 2)
    assert "told to save and stop" in cancel(config.run_dir)
    _wait_until(lambda: not run_status(config.run_dir).active)
    status = run_status(config.run_dir)
    assert (status.state, status.checkpoint) == ("cancelled", f"step_{status.step:08d}")
    assert "nothing to cancel" in cancel(config.run_dir)
    output, _ = follower.communicate(timeout=20)
    assert output.splitlines() == log.read_text().splitlines()  # of both attempts
    assert output.count("from the start") == 1
    resumed = resume(config.run_dir, None, [f"train.steps={status.step + 2}"])
    assert "changed since the start: train.steps" in resumed.note
    assert wait(resumed, lambda row: None).state == "trained"
    rows = [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, status.step + 3))


def bigchem(checkout: Path, *words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run(
        [*BIGCHEM, *words], cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL
    )  # a pipe would stay open until the run is over


def _wait_for(config: RunConfig, step: int) -> None:
    _wait_until(lambda: run_status(config.run_dir).step >= step)


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _broken_model(tmp_path: Path) -> Path:
    """A folder that passes the checks before the queue, but has no loadable model: pickles from before torch 1.6 are
    not inspected."""
    folder = tmp_path / "broken-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(to_hf_config(shape("t5-small"), dropout=0.0)))
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    return folder


def test_a_run_that_fails_says_why(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, small_data, "broken", model={"init_from": str(_broken_model(tmp_path))})
    submitted = submit(config, LOCAL.model_copy(update={"tasks_per_node": 1}))
    with pytest.raises(UserError, match=r"pytorch_model\.bin"):
        wait(submitted, lambda row: None)
    assert run_status(config.run_dir).state == "failed"


@pytest.mark.slow
def test_a_failing_run_does_not_keep_the_others_of_a_sweep_from_running(small_data: Path, tmp_path: Path) -> None:
    bad = config_of(tmp_path, small_data, "bad", model={"init_from": str(_broken_model(tmp_path))})
    good = config_of(tmp_path, small_data, "good")
    with pytest.raises(UserError, match="1 of 2 runs failed: bad"):
        submit_sweep([SweepRun(bad, LOCAL), SweepRun(good, LOCAL)], "x", lambda row: None)
    assert run_status(good.run_dir).state == "trained"


def test_an_unknown_task_in_the_last_run_of_a_sweep_is_told_before_the_first_trains(
    small_data: Path, tmp_path: Path
) -> None:
    good = config_of(tmp_path, small_data, "good")
    bad = config_of(tmp_path, small_data, "bad", data={"mixture": {"captionning": 1.0}})
    with pytest.raises(UserError, match=r"unknown task 'captionning'\n.*did you mean 'captioning'"):
        submit_sweep([SweepRun(good, LOCAL), SweepRun(bad, LOCAL)], "x", lambda row: None)
    assert not good.run_dir.exists()


def test_a_run_whose_process_is_gone_is_lost(small_data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "gone"
    run_dir.mkdir()
    (run_dir / "config.toml").write_text("")
    (run_dir / "state.json").write_text('{"state": "running", "step": 3, "steps": 9}')
    owned(run_dir, "4194305", "local")
    status = run_status(run_dir)
    assert (status.state, status.active) == ("lost", False)
    assert "killed, or the machine restarted" in str(status.reason)


@pytest.mark.parametrize(("at_end", "evaluation"), [(True, None), (False, "8")])
def test_a_run_whose_job_ends_before_the_evaluation_that_is_due_has_failed(
    small_data: Path, tmp_path: Path, at_end: bool, evaluation: str | None
) -> None:
    config = config_of(tmp_path, small_data, "cut", evaluate={"at_end": at_end})
    config.run_dir.mkdir()
    (config.run_dir / "config.toml").write_text(toml.dump(config))
    (config.run_dir / "state.json").write_text('{"state": "trained", "step": 6, "steps": 6, "end": "trained"}')
    owned(config.run_dir, "4194305", "local", evaluation=evaluation)
    with pytest.raises(UserError, match="was trained, but not evaluated"):
        wait(Submitted(config.run_dir, None, ""), lambda row: None)


def test_a_run_without_an_evaluation_is_done_when_it_is_trained(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, small_data, "done", evaluate={"at_end": False})
    config.run_dir.mkdir()
    (config.run_dir / "config.toml").write_text(toml.dump(config))
    (config.run_dir / "state.json").write_text('{"state": "trained", "step": 6, "steps": 6, "end": "trained"}')
    assert wait(Submitted(config.run_dir, None, ""), lambda row: None).state == "trained"


def test_what_would_fail_in_the_job_fails_before_the_queue(small_data: Path, tmp_path: Path) -> None:
    config = json.dumps(to_hf_config(shape("t5-small"), dropout=0.0))
    for name, text in [("alone", config), ("wide", config.replace('"d_model": 512', '"d_model": "512"'))]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "typo.json").write_text('{"zero_optimisation": {"stage": 3}}')
    for section, fields, message in [
        ("data", {"path": str(tmp_path)}, "no data here"),
        ("model", {"init_from": str(tmp_path / "none")}, "no such folder"),
        ("model", {"preset": "t5-smal"}, "did you mean 't5-small'"),
        ("model", {"init_from": str(tmp_path / "alone")}, "holds no weights"),
        ("model", {"init_from": str(tmp_path / "wide")}, "d_model"),
        ("train", {"ds_config": "zero9"}, "did you mean 'zero"),
        ("train", {"ds_config": str(tmp_path / "typo.json")}, "did you mean 'zero_optimization'"),
    ]:
        run = config_of(tmp_path / "runs", small_data, "bad", **{section: fields})
        with pytest.raises(UserError, match=message):
            submit(run, LOCAL)
    assert not (tmp_path / "runs").exists()


def test_a_job_that_slurm_refuses_is_told_in_its_words(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sbatch and srun are stand-ins here: this tests how a refusal is reported."""
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun"):
        program = tmp_path / "bin" / name
        program.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: gpuu' >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(UserError, match="invalid partition: gpuu"):
        submit(config_of(tmp_path, small_data, "x"), ClusterProfile(executor="slurm"))
    assert not run_status(tmp_path / "x").active


def test_an_sbatch_that_does_not_answer_is_not_waited_for(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(executors, "SBATCH_TIMEOUT_S", 0.3)
    with pytest.raises(UserError, match="sbatch has not answered"):
        submit(config_of(tmp_path, small_data, "x"), ClusterProfile(executor="slurm"))


def test_a_run_goes_on_where_its_folder_was_moved_to(finished: RunConfig, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(finished.run_dir, moved)
    resumed = resume(moved, LOCAL)
    assert (resumed.run_dir, resumed.note) == (moved, "already finished: nothing to do")


def test_slurm_without_sbatch_is_a_user_error(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="sbatch is not on PATH"):
        submit(config_of(tmp_path, small_data, "x"), ClusterProfile(executor="slurm"))
