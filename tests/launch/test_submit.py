"""Real runs through submitit's local executor: two processes each."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from runs import config_of
from transformers import T5ForConditionalGeneration

from bigchem.config import RunConfig
from bigchem.errors import UserError
from bigchem.launch.cluster import ClusterProfile, load_profile
from bigchem.launch.status import RunStatus, all_runs, run_status, to_json
from bigchem.launch.submit import dry_run, submit, submit_all, wait

LOCAL = load_profile("local")
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
    assert {task for task, _ in found} == set(finished.data.mixture)
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
    (row,) = all_runs(Path(finished.runs))
    assert (row.run, row.state, row.step, row.steps, row.checkpoint) == ("whole", "finished", 6, 6, "step_00000006")
    assert row.loss is not None
    assert not row.active
    assert json.loads(json.dumps(to_json([row])))[0]["state"] == "finished"


def test_a_signalled_run_saves_is_requeued_and_finishes(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, small_data, "preempted", train={"steps": 60}, checkpoint={"every": 1000})
    submitted = submit(config, LOCAL)
    deadline = time.monotonic() + 60
    while run_status(config.run_dir).step < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "already running" in submit(config, LOCAL).note
    for pid in _children(int(submitted.job.job_id)):
        os.kill(pid, signal.SIGUSR2)
    status = wait(submitted, lambda row: None)
    assert (status.state, status.step) == ("trained", 60)
    rows = [json.loads(line) for line in (config.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 61))
    log = (config.run_dir / "logs" / "rank0.log").read_text()
    assert log.count("from the start") == 1
    assert log.count("from step") == 1


def _children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _empty_model(tmp_path: Path) -> Path:
    """A folder that passes the checks before the queue, and that no model can be loaded from."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    return tmp_path / "empty"


def test_a_run_that_fails_says_why(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, small_data, "broken", model={"init_from": str(_empty_model(tmp_path))})
    submitted = submit(config, LOCAL)
    with pytest.raises(UserError, match="empty"):
        wait(submitted, lambda row: None)
    assert run_status(config.run_dir).state == "failed"


def test_a_failing_run_does_not_keep_the_others_of_a_sweep_from_running(small_data: Path, tmp_path: Path) -> None:
    bad = config_of(tmp_path, small_data, "bad", model={"init_from": str(_empty_model(tmp_path))})
    good = config_of(tmp_path, small_data, "good")
    with pytest.raises(UserError, match="1 of 2 runs failed: bad"):
        submit_all([bad, good], LOCAL, lambda row: None)
    assert run_status(good.run_dir).state == "trained"


def test_a_run_whose_process_is_gone_is_lost(small_data: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "gone"
    run_dir.mkdir()
    (run_dir / "config.toml").write_text("")
    (run_dir / "state.json").write_text('{"state": "running", "step": 3, "steps": 9}')
    (run_dir / "submission.json").write_text('{"executor": "local", "job": "4194305"}')
    status = run_status(run_dir)
    assert (status.state, status.active) == ("lost", False)
    assert "killed without a word" in str(status.reason)


@pytest.mark.parametrize(
    ("answer", "active"),
    [("exit 1", None), ("echo 'slurm_load_jobs error: Invalid job id' >&2; exit 1", False), ("echo RUNNING", True)],
)
def test_a_job_that_slurm_does_not_answer_for_is_neither_alive_nor_gone(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, active: bool | None
) -> None:
    """squeue is a stand-in here: what is tested is how its answers are read."""
    config = config_of(tmp_path, small_data, "far")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\n{answer}\n")
    (tmp_path / "bin" / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    config.run_dir.mkdir()
    (config.run_dir / "state.json").write_text('{"state": "running", "step": 3, "steps": 9}')
    (config.run_dir / "submission.json").write_text('{"executor": "slurm", "job": "7"}')
    assert run_status(config.run_dir).active is active
    if active is None:
        with pytest.raises(UserError, match="cannot tell whether job 7 still runs"):
            submit(config, LOCAL)


def test_a_dry_run_shows_configuration_and_script_and_writes_nothing(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", small_data, "dry")
    text = dry_run(config, load_profile("h100", nodes=2))
    assert "#SBATCH --nodes=2" in text
    assert 'preset = "sweep-0.2m"' in text
    assert not (tmp_path / "runs").exists()


def test_what_would_fail_in_the_job_fails_before_the_queue(small_data: Path, tmp_path: Path) -> None:
    for section, fields, told in [
        ("data", {"path": str(tmp_path)}, "no data here"),
        ("model", {"init_from": str(tmp_path / "none")}, "no such folder"),
        ("model", {"preset": "t5-smal"}, "did you mean 't5-small'"),
        ("train", {"ds_config": "zero9"}, "did you mean 'zero"),
    ]:
        config = config_of(tmp_path / "runs", small_data, "bad", **{section: fields})
        with pytest.raises(UserError, match=told):
            submit(config, LOCAL)
    assert not (tmp_path / "runs").exists()


def test_a_job_that_slurm_refuses_is_told_in_its_words(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sbatch and srun are stand-ins here: what is tested is how a refusal is told."""
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun"):
        program = tmp_path / "bin" / name
        program.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: gpuu' >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(UserError, match="invalid partition: gpuu"):
        submit(config_of(tmp_path, small_data, "x"), ClusterProfile(executor="slurm"))
    assert not run_status(tmp_path / "x").active


def test_slurm_without_sbatch_is_a_user_error(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="sbatch is not on PATH"):
        submit(config_of(tmp_path, small_data, "x"), ClusterProfile(executor="slurm"))
