"""Arrays on a real Slurm: sweeps, data builds, evaluations; tasks that fail or are restarted."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import owners
import pytest
from reading import files_of
from runs import config_of, losses
from waiting import until

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.config import RunConfig
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import BuildConfig
from bigchem.data.sources.base import SourceConfig
from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.runs.status import RunStatus, run_status, statuses
from bigchem.launch.slurm import squeue
from bigchem.launch.slurm.testbed.bed import Bed
from bigchem.launch.workloads.build import build_in_tasks
from bigchem.launch.workloads.evaluate import Request, evaluate_here, evaluate_in_tasks
from bigchem.launch.workloads.sweep import SweepRun, submit_sweep, wait_for_all
from bigchem.run import ownership

QUIET = Progress(quiet=True)
ONE = load_profile("testbed").model_copy(update={"nodes": 1, "tasks_per_node": 1})


def sweep_of(small_data: Path, runs: Path, profile: ClusterProfile, count: int, steps: int) -> list[SweepRun]:
    """Runs that differ in their learning rate and are not evaluated."""
    train = {"steps": steps}
    return [
        SweepRun(config_of(runs, small_data, f"s{n}", train=train, optimizer={"lr": 1e-3 * (n + 1)}), profile)
        for n in range(count)
    ]


def block(config: RunConfig) -> Path:
    """What must be removed before the run can be trained."""
    file = config.run_dir / "checkpoints"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def silent(row: RunStatus) -> None:
    """Prints nothing."""


def job_of(config: RunConfig) -> str:
    return owners.job_of(config.run_dir)


@pytest.mark.slow
def test_six_runs_are_an_array_of_which_only_the_failed_one_is_submitted_again(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    """A file in place of one run's folder stands for anything that can go wrong on a node."""
    profile = ONE.model_copy(update={"max_concurrent": 4})
    runs = sweep_of(small_data, tmp_path / "runs", profile, 6, 3)
    configs = [run.config for run in runs]
    blocked = block(configs[4])
    submit_sweep(runs, "six", silent)
    array = job_of(configs[0]).partition("_")[0]
    assert [job_of(config) for config in configs] == [f"{array}_{n}" for n in range(6)]
    assert "ArrayTaskThrottle=4" in testbed.call("scontrol", "show", "job", array)
    with pytest.raises(UserError, match=r"1 of 6 runs failed: s4; the first: .*: File exists"):
        wait_for_all([config.run_dir for config in configs], silent)
    assert [row.state for row in statuses([c.run_dir for c in configs])] == [*["trained"] * 4, "failed", "trained"]
    blocked.unlink()
    submit_sweep(runs, "six", silent)
    wait_for_all([config.run_dir for config in configs], silent)
    assert [job_of(config).partition("_")[0] == array for config in configs] == [*[True] * 4, False, True]
    assert all(len(losses(config)) == 3 for config in configs)


@pytest.mark.slow
def test_each_run_is_evaluated_when_it_is_trained_though_its_task_was_started_again(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    runs = sweep_of(small_data, tmp_path / "runs", ONE, 3, 40)
    evaluate = {"max_rows": 2, "max_new_tokens": 8, "bootstrap": 0}
    configs = [
        config_of(tmp_path / "runs", small_data, f"s{n}", train={"steps": 40}, evaluate=evaluate) for n in range(3)
    ]
    runs = [SweepRun(config, ONE, ONE.model_copy(update={"tasks_per_node": 2})) for config in configs]
    blocked = block(configs[0])
    submit_sweep(runs, "three", silent)
    until(lambda: run_status(configs[2].run_dir).step > 3, "the last run does not train")
    subprocess.run(["scancel", "--signal=USR2", job_of(configs[2])], check=True, timeout=10)
    with pytest.raises(UserError, match="1 of 3 runs failed: s0"):
        wait_for_all([config.run_dir for config in configs], silent)
    assert [run_status(c.run_dir).state for c in configs] == ["failed", "finished", "finished"]
    assert all((config.run_dir / "results" / "results.json").is_file() for config in configs[1:])
    begun = [(config.run_dir / "logs" / "rank0.log").read_text() for config in configs[1:]]
    assert [log.count("from step") for log in begun] == [0, 1]  # the rest of its array was not restarted
    assert [len(losses(config)) for config in configs[1:]] == [40, 40]
    left = squeue.ask([str(getattr(ownership.read(configs[0].run_dir), "evaluation", None))])
    assert all(job.gone for job in left.jobs.values())  # it could never have started
    blocked.unlink()
    shutil.rmtree(configs[1].run_dir / "results")
    (configs[1].run_dir / "state.json").write_text('{"state": "trained", "step": 40, "steps": 40, "time": 0.0}')
    submit_sweep(runs, "three", silent)
    assert (
        getattr(ownership.read(configs[1].run_dir), "evaluation", "") is None
    )  # it is trained: its job is the evaluation
    wait_for_all([config.run_dir for config in configs], silent)
    assert [run_status(c.run_dir).state for c in configs] == ["finished"] * 3
    assert (configs[1].run_dir / "logs" / "rank0.log").read_text().count("from step") == 0


@pytest.mark.slow
def test_a_data_build_of_which_a_task_is_lost_ends_in_the_bytes_of_one_process(testbed: Bed, tmp_path: Path) -> None:
    sources = (
        SourceConfig(format="synthetic", split="train", rows=2300, seed=1),
        SourceConfig(format="synthetic", split="test", rows=60, seed=2),
    )
    config, out = BuildConfig(sources=sources, shard_rows=150), tmp_path / "data"
    assert not build_in_tasks(config, out, ONE, 3, QUIET)
    jobs = tmp_path / ".data.jobs"
    with pytest.raises(UserError, match="8 of its jobs are already queued or running"):
        build_in_tasks(config, out, ONE, 3, QUIET)
    parse, _ = sorted(jobs.glob("*_1_submitted.pkl"))  # and write
    subprocess.run(["scancel", parse.name.removesuffix("_submitted.pkl")], check=True, timeout=10)
    until(lambda: not testbed.call("squeue", "--noheader").strip(), "what depends on a lost task stays in the queue")
    assert not out.exists()
    parsed = {path: path.stat().st_mtime_ns for path in (tmp_path / ".data.partial" / "parsed").glob("*")}
    assert len(parsed) == 5  # two of three parts, with three of four chunks
    lines: list[str] = []
    progress = Progress(quiet=True)
    progress.say = lines.append  # type: ignore[method-assign]
    assert build_in_tasks(config, out, ONE, 3, progress, stay=True)
    assert next(line for line in lines if "logs in" in line).startswith("parse: 1 tasks")
    build(config, tmp_path / "one", QUIET, workers=1)
    assert files_of(out) == files_of(tmp_path / "one")
    assert not jobs.exists()


@pytest.mark.slow
def test_tasks_on_slurm_evaluate_a_run_as_one_process_does(testbed: Bed, small_data: Path, tmp_path: Path) -> None:
    (run,) = sweep_of(small_data, tmp_path / "runs", ONE, 1, 3)
    submit_sweep([run], "one", silent)
    run_dir = run.config.run_dir
    wait_for_all([run_dir], silent)
    overrides = ("max_rows=8", "max_new_tokens=8", "batch_tokens=150", "bootstrap=10")
    results = evaluate_in_tasks(Request(run_dir, overrides=overrides), ONE, 3, QUIET, stay=True)
    assert results == run_dir / "results" / "results.json"
    whole = evaluate_here(Request(run_dir, None, (), tmp_path / "one", overrides))
    assert results.read_bytes() == whole.read_bytes()
    for file in (tmp_path / "one" / "predictions").glob("*[a-z].jsonl"):
        assert (run_dir / "results" / "predictions" / file.name).read_bytes() == file.read_bytes()
