"""What one submission asks for, on a real Slurm: from inside another job, after other jobs, on a range of nodes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import config_of
from waiting import until_run

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.cli.options.submission import read_options
from bigchem.config import RunConfig
from bigchem.launch.cluster.arrays import Step, submit_steps
from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.runs.status import RunStatus, run_status
from bigchem.launch.slurm import squeue
from bigchem.launch.slurm.options import KNOWN, OneShot
from bigchem.launch.slurm.testbed.bed import Bed
from bigchem.launch.submit import resume, submit

ONE = load_profile("testbed").model_copy(update={"nodes": 1, "tasks_per_node": 1})


def over(run: Path) -> RunStatus:
    return until_run(run, lambda row: row.active is False)


def held_job(bed: Bed, script: str = "exit 0") -> str:
    """A user's own job, held until it is released."""
    output = bed.call("sbatch", "--hold", "--parsable", "--output=/dev/null", f"--wrap={script}")
    return output.strip()


@pytest.mark.slow
def test_a_run_that_is_submitted_from_inside_an_allocation_inherits_nothing_of_it_and_trains(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    config, seen = config_of(tmp_path / "runs", small_data, "inside"), tmp_path / "seen"
    profile = ONE.model_copy(update={"setup": (f"env > {seen}",)})
    (tmp_path / "run.toml").write_text(toml.dump(config))
    (tmp_path / "mine.toml").write_text(toml.dump(profile))
    words = [sys.executable, "-m", "bigchem", "submit", str(tmp_path / "run.toml"), "--wait"]
    allocation = ["salloc", "-n1", "-c1", "--mem-per-cpu=77", "srun", "--cpu-bind=none"]
    mine = {"SBATCH_ACCOUNT": "somebody", "SBATCH_MEM_PER_CPU": "88", "PMIX_RANK": "3", "RANK": "5"}
    done = subprocess.run(
        [*allocation, *words, "--cluster", str(tmp_path / "mine.toml")],
        env={**os.environ, **mine},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert run_status(config.run_dir).state == "trained"
    assert "ignored, as jobs follow the cluster profile only: SBATCH_ACCOUNT (its field: account)" in done.stderr
    names = {line.partition("=")[0]: line.partition("=")[2] for line in seen.read_text().splitlines()}
    leaked = {
        "SLURM_MEM_PER_CPU",
        "SLURM_CPU_BIND",
        "SLURM_CPU_BIND_TYPE",
        "SLURM_STEP_ID",
        "SLURM_SRUN_COMM_HOST",
        *mine,
    }
    assert leaked & names.keys() == set()
    assert names["SLURM_JOB_NAME"] == "inside"  # the new job's own


@pytest.mark.slow
def test_a_setup_line_that_fails_ends_the_job_once_and_the_run_says_which(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, small_data, "setup")
    submit(config, ONE.model_copy(update={"setup": ("false || true", "set -e", "module load 'no such'")}))
    status = over(config.run_dir)
    assert status.state == "failed"
    assert str(status.reason).startswith("setup failed (exit code 127): module load 'no such'")
    while not (found := squeue.ask([str(status.job)]).jobs[str(status.job)]).gone:
        time.sleep(0.3)
    assert (found.state, found.restarts) == ("FAILED", 0)
    good = ONE.model_copy(update={"setup": ("# a remark", "set -eu", "if true; then export WORD=1; fi", "test $WORD")})
    resume(config.run_dir, good)
    assert over(config.run_dir).state == "trained"


@pytest.mark.slow
def test_slurm_picks_from_a_range_of_nodes_and_the_run_has_as_many_ranks(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    profile, _ = read_options(nodes="1-4", set_cluster=["tasks_per_node=2"]).resolve("testbed")
    config = config_of(tmp_path, small_data, "range")
    submit(config, profile)
    assert over(config.run_dir).state == "trained"
    assert worlds(config) == [4]
    testbed.call("scontrol", "update", "nodename=node2", "state=drain", "reason=test")
    try:
        resume(config.run_dir, None, ["train.steps=8"])
        assert over(config.run_dir).state == "trained"
    finally:
        testbed.call("scontrol", "update", "nodename=node2", "state=resume")
    assert worlds(config) == [4, 2]


def worlds(config: RunConfig) -> list[int]:
    """Ranks of each attempt."""
    return [json.loads(line)["ranks"] for line in (config.run_dir / "history.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_run_begins_after_another_that_was_started_again_in_between(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    first = config_of(tmp_path, small_data, "first", train={"steps": 40}, checkpoint={"every": 500})
    second = config_of(tmp_path, small_data, "second")
    submit(first, ONE)
    profile, once = read_options(after=[str(first.run_dir)], set_cluster=["nodes=1", "tasks_per_node=1"]).resolve(
        "testbed"
    )
    submit(second, profile, options=once)
    until_run(first.run_dir, lambda row: row.step >= 3)
    testbed.call("scancel", "--signal=USR2", str(run_status(first.run_dir).job))
    until_run(first.run_dir, lambda row: row.restarts == 1 and row.state == "running")
    assert run_status(second.run_dir).reason == "Dependency"
    assert over(first.run_dir).state == "trained"
    assert over(second.run_dir).state == "trained"
    assert read_options(after=[str(first.run_dir)]).resolve("testbed")[1].after == ()  # done: nothing to wait for


@pytest.mark.slow
def test_what_waits_for_a_job_that_fails_is_cancelled_and_begins_all_the_same_where_it_may(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    failing = held_job(testbed, "exit 1")
    strict_run, any_run = config_of(tmp_path, small_data, "ok"), config_of(tmp_path, small_data, "any")
    for config, any_end in ((strict_run, False), (any_run, True)):
        profile, once = read_options(after=[failing], after_any=any_end, set_cluster=["sbatch.hold=true"]).resolve(
            "testbed"
        )
        submit(config, profile, options=once)
        assert "hold" not in (config.run_dir / "cluster.toml").read_text()
        assert run_status(config.run_dir).state == "queued"
    testbed.call("scontrol", "release", failing)
    assert "CANCELLED (DependencyNeverSatisfied)" in str(over(strict_run.run_dir).reason)
    assert until_run(any_run.run_dir, lambda row: row.reason == "JobHeldUser").state == "queued"
    with pytest.raises(UserError, match=r"it is lost .*a job that waits for it would never start"):
        read_options(after=[str(strict_run.run_dir)]).resolve("testbed")
    testbed.call("scancel", str(run_status(any_run.run_dir).job))


def test_the_first_step_of_a_build_waits_for_other_jobs_and_the_next_for_the_first(
    testbed: Bed, tmp_path: Path
) -> None:
    other = held_job(testbed)
    options, steps = OneShot(after=(other,)), [Step("one", print, [(1,), (2,)]), Step("two", print, [(3,)])]
    one, two = submit_steps(steps, ONE, tmp_path / "jobs", "build", [tmp_path], options)
    first, second = (str(handed.jobs[0].job_id).partition("_")[0] for handed in (one, two))
    shown = {
        job: testbed.call("squeue", "--noheader", "--Format=Dependency:80", "--jobs", job) for job in (first, second)
    }
    assert f"afterok:{other}(" in shown[first]
    assert f"afterok:{first}" in shown[second]
    assert other not in shown[second]
    testbed.call("scancel", other, first, second)


@pytest.mark.slow
def test_a_controller_that_is_down_is_told_as_that(
    testbed: Bed, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", (testbed.folder / "slurm.conf").read_text()))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    with pytest.raises(UserError, match=r"(?s)Unable to contact slurm controller.*try again later; `sinfo`"):
        submit(config_of(tmp_path, small_data, "down"), ONE)


def test_every_long_option_of_this_slurms_sbatch_is_classified(testbed: Bed) -> None:
    options = set(re.findall(r"^ .{0,6}--([a-z-]+)", testbed.call("sbatch", "--help"), re.MULTILINE))
    assert len(options) > 80
    assert options <= set(KNOWN)


def test_slurms_own_words_come_with_the_remedy_that_fits(testbed: Bed, small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, small_data, "refused")

    def refusal(**fields: object) -> UserError:
        with pytest.raises(UserError) as raised:
            submit(config, ClusterProfile.model_validate({"executor": "slurm", **fields}))
        return raised.value

    assert "partition in the profile" in str(refusal(partition="gpuu").hint)
    assert "nodes have what the profile asks for" in str(refusal(gpus_per_node=8, tasks_per_node=8).hint)
    assert "unrecognized option" in refusal(sbatch={"no-such-thing": 1}).what
    assert "[sbatch]" in str(refusal(sbatch={"no-such-thing": 1}).hint)
    with pytest.raises(UserError, match="Slurm does not know it"):
        read_options(after=["99999999"]).resolve("testbed")
