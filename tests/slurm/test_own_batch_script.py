"""A run started by the user's own sbatch, and a second cluster on the same file system. Both on a real Slurm."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from disruptions import survived
from owners import job_of
from runs import config_of, losses
from waiting import until

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.launch.cancel import cancel
from bigchem.launch.cluster.profile import load_profile
from bigchem.launch.runs import history, logs
from bigchem.launch.runs.status import run_status
from bigchem.launch.slurm import client
from bigchem.launch.slurm.testbed.bed import Bed
from bigchem.launch.slurm.testbed.conf import free_port
from bigchem.launch.submit import resume, submit
from bigchem.run import ownership

TIMEOUT = 300
COOKBOOK = Path(__file__).parents[2] / "slurm" / "README.md"


def sbatch(
    config: RunConfig, folder: Path, *options: str, edit: tuple[str, str] = ("", "")
) -> subprocess.CompletedProcess[str]:
    """Submits the cookbook's own script, for a run and nodes of this size."""
    (folder / "run.toml").write_text(toml.dump(config))
    (script,) = re.findall(r"```bash\n(#!.*?)```", COOKBOOK.read_text(), re.DOTALL)
    script = script.replace("runs/base", str(config.run_dir)).replace("cpus-per-task=12", "cpus-per-task=1")
    (folder / "mine.sbatch").write_text(script.replace(*edit) if edit[0] else script)
    small = ["--ntasks-per-node=1", "--gpus-per-node=0", f"--chdir={folder}", f"--output={folder}/%j.out"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    env["PATH"] = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])
    return subprocess.run(
        ["sbatch", "--parsable", *small, *options, str(folder / "mine.sbatch")],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env=env,
    )


def kill_a_rank(job: str, rank: str) -> None:
    """SIGKILL to a rank of the user's own job, as from the out-of-memory killer."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "environ").read_bytes().split(b"\0")
            ours = b"train" in (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if ours and f"SLURM_JOB_ID={job}".encode() in words and rank.encode() in words:
            os.kill(int(folder.name), 9)


@pytest.mark.slow
def test_status_cancel_logs_and_resume_work_for_a_run_of_ones_own_batch_script(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, small_data, "own", train={"steps": 5000}, checkpoint={"every": 5})
    run = config.run_dir
    job = sbatch(config, tmp_path).stdout.strip()
    report = lambda: (run_status(run), (tmp_path / f"{job}.out").read_text()[-2000:])  # noqa: E731
    until(lambda: run_status(run).step >= 7, report)
    status = run_status(run)
    assert (status.state, status.job, status.nodes, status.active) == ("running", job, "node[1-2]", True)
    assert f"already running as job {job}" in submit(config, load_profile("testbed")).note
    # srun ends with 137
    print(
        survived(
            testbed,
            config,
            1,
            "SIGKILL of a rank of one's own batch script",
            lambda: kill_a_rank(job, "SLURM_PROCID=1"),
        )
    )
    assert run_status(run).job == job
    assert history.read(run)[0].end in ("lost rank", "killed")
    assert f"job {job} is requeued" in (tmp_path / f"{job}.out").read_text()
    assert "told to save and stop" in cancel(run)
    until(lambda: run_status(run).active is False, report)
    assert run_status(run).state == "cancelled"
    out = io.BytesIO()
    logs.show(run, out)
    assert b"SIGINT" in out.getvalue()
    with pytest.raises(UserError, match="your own batch script"):
        resume(run, None)
    one = load_profile("testbed").model_copy(update={"nodes": 1, "tasks_per_node": 1})
    resume(run, one, [f"train.steps={run_status(run).step + 2}"])
    until(lambda: run_status(run).active is False, report)
    assert run_status(run).state == "trained"


@pytest.mark.slow
def test_a_batch_script_that_calls_torchrun_is_seen_started_again_and_cancelled(
    testbed: Bed, small_data: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, small_data, "own", train={"steps": 5000}, checkpoint={"every": 5})
    run, torchrun = config.run_dir, f"{Path(sys.executable).parent}/torchrun --standalone --nproc-per-node 2"
    edit = ("srun --kill-on-bad-exit=1 --cpus-per-task=1 bigchem", f"{torchrun} -m bigchem")
    job = sbatch(config, tmp_path, "--nodes=1", "--cpus-per-task=2", edit=edit).stdout.strip()
    report = lambda: (run_status(run), (tmp_path / f"{job}.out").read_text()[-2000:])  # noqa: E731
    until(lambda: run_status(run).step >= 7, report)
    assert (run_status(run).state, run_status(run).job) == ("running", job)
    print(survived(testbed, config, 1, "SIGKILL of a worker of torchrun", lambda: kill_a_rank(job, "LOCAL_RANK=1")))
    assert [(row.job, row.end) for row in history.read(run)] == [(job, "lost rank")]
    assert "told to save and stop" in cancel(run)
    until(lambda: run_status(run).active is False, report)
    assert run_status(run).state == "cancelled"
    assert run_status(run).checkpoint == f"step_{run_status(run).step:08d}"


@pytest.fixture
def other(testbed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A second cluster that sees the same files."""
    bed = Bed(tmp_path_factory.mktemp("other"), ("far1",), free_port(1))
    bed.start(tied=True)
    yield bed
    bed.stop()


def speak_to(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in bed.environment().items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_two_clusters_on_one_file_system_do_not_train_one_run(
    testbed: Bed, other: Bed, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the user wrongly declares the first gone, it ends when it sees the second."""
    config = config_of(
        *(tmp_path, small_data, "shared"), train={"steps": 120, "ledger": True}, checkpoint={"every": 5, "keep": 2}
    )
    run, one = config.run_dir, load_profile("testbed").model_copy(update={"nodes": 1, "tasks_per_node": 1})
    submit(config, one)
    until(lambda: run_status(run).step >= 7, lambda: run_status(run))
    first = job_of(run)
    speak_to(other, monkeypatch)
    assert client.cluster_name({}) != ownership.read(run).cluster  # type: ignore[union-attr]
    status = run_status(run)
    assert (status.state, status.active) == ("running", None)
    assert "ask on testbed-" in str(status.reason)
    for act in (lambda: submit(config, one), lambda: cancel(run), lambda: resume(run, None)):
        with pytest.raises(UserError, match=f"job {first} of cluster testbed-"):
            act()
    assert sbatch(config, tmp_path, "--wait", "--nodes=1", f"--output={tmp_path}/far.out").returncode == 2
    assert f"cannot tell whether job {first} of cluster testbed-" in (tmp_path / "far.out").read_text()
    (run / ownership.FILE).unlink()  # the remedy that the message names
    submit(config, one)
    second = job_of(run)
    assert second != first
    until(lambda: run_status(run).active is False, lambda: run_status(run))
    assert run_status(run).state == "trained"
    log = (run / "logs" / "rank0.log").read_text()
    assert "the run was taken over by job" in log or "the run's owner record was removed" in log
    assert [row.job for row in history.read(run)][-1] == second
    assert [step for step, _ in enumerate(losses(config), 1)] == list(range(1, 121))
