"""Faults in whole programs: signals, a kill, a hang; under every launcher."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from faults import Fault, write
from runs import config_of, losses

from bigchem.base import toml
from bigchem.config import RunConfig
from bigchem.launch.cluster.profile import load_profile
from bigchem.launch.runs.status import run_status
from bigchem.launch.submit import submit, wait
from bigchem.run.state import read_state
from bigchem.train.checkpoint.store import published
from bigchem.train.logging import ledger

TESTS = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TORCHRUN = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2"]
TIMEOUT = 180


def command(launcher: Sequence[str], config: RunConfig, faults: Sequence[Fault], folder: Path) -> list[str]:
    (folder / "run.toml").write_text(toml.dump(config))
    write(folder / "faults.json", faults)
    return [
        *launcher,
        str(TESTS / "train" / "faults.py"),
        str(folder / "faults.json"),
        "train",
        str(folder / "run.toml"),
    ]


def started(words: list[str], folder: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(TESTS / "train"), os.environ.get("PYTHONPATH", "")])
    with (folder / "out.txt").open("a") as out:
        environment = {**os.environ, **(env or {}), "PYTHONPATH": path}
        return subprocess.Popen(words, stdout=out, stderr=out, env=environment, start_new_session=True)


def wait_for(config: RunConfig, step: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while read_state(config.run_dir).get("step", 0) < step or read_state(config.run_dir)["state"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(folder: Path) -> list[str]:
    """Processes of the program that have not ended: their command lines name its folder."""
    listed = subprocess.run(["ps", "-eww", "-o", "stat=,args="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if str(folder / "run.toml") in line and line[0] != "Z"]


def processes_of(folder: Path) -> list[int]:
    """Processes of the program, its launcher and its ranks, which have their own process groups."""
    listed = subprocess.run(["ps", "-eww", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if str(folder / "run.toml") in line]


SLEEPS = [Fault("forward", 0, (4,), 60.0)]


@pytest.mark.parametrize(
    ("number", "presses", "faults", "code", "saved"),
    [
        (signal.SIGINT, 1, [Fault("forward", 0, (4,), 3.0)], 3, ["step_00000003", "step_00000004"]),
        pytest.param(
            *(signal.SIGUSR1, 1, [Fault("forward", 0, (4,), 3.0)], 75, ["step_00000003", "step_00000004"]),
            marks=pytest.mark.slow,
        ),
        (signal.SIGINT, 2, SLEEPS, 3, ["step_00000003"]),
    ],
    ids=["ctrl-c", "usr1", "ctrl-c-twice"],
)
def test_a_signal_ends_the_program_with_its_exit_code(
    small_data: Path, tmp_path: Path, number: int, presses: int, faults: list[Fault], code: int, saved: list[str]
) -> None:
    config = config_of(tmp_path / "runs", small_data, "run", train={"steps": 9})
    process = started(command([sys.executable], config, faults, tmp_path), tmp_path)
    wait_for(config, 3)
    time.sleep(1)
    for _ in range(presses):
        process.send_signal(number)
        time.sleep(1)
    assert process.wait(timeout=TIMEOUT) == code
    assert [path.name for path in published(config.run_dir / "checkpoints")] == saved
    output = (tmp_path / "out.txt").read_text()
    assert "Traceback" not in output
    assert ("interrupted: nothing saved" in output) == (presses == 2)
    assert run_status(config.run_dir).state == "stopped"


def test_a_job_that_ends_soon_saves_and_asks_to_be_started_again(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", small_data, "run", train={"steps": 10**6})
    words = command([sys.executable], config, [], tmp_path)
    process = started(words, tmp_path, {"BIGCHEM_JOB_END": str(time.time() + 25)})
    assert process.wait(timeout=TIMEOUT) == 75
    (event,) = [json.loads(line) for line in (config.run_dir / "events.jsonl").read_text().splitlines()][-1:]
    assert (event["kind"], event["action"]) == ("stop", "saved")
    assert "s are left in the job" in event["detail"]


def test_a_hang_on_one_rank_names_it_and_its_phase_and_ends_all(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", small_data, "run", health={"hang_s": 4.0})
    process = started(command(TORCHRUN, config, [Fault("data", 1, (5,), 600.0)], tmp_path), tmp_path)
    assert process.wait(timeout=TIMEOUT) == 1  # torchrun's own
    reason = str(run_status(config.run_dir).reason)
    assert re.match(r"hang at step 5: no progress for \d+ s: rank 1 \(", reason)
    assert "stuck in data" in reason
    assert "rank 0 waiting in backward" in reason
    assert (tmp_path / "out.txt").read_text().count("exitcode  : 75") == 2
    stacks = (config.run_dir / "logs" / "rank1.log").read_text()
    assert "faults.py" in stacks  # where the loader's thread sleeps
    assert json.loads((config.run_dir / "health" / "rank1.json").read_text())["phase"] == "data"
    recorded = json.loads((config.run_dir / "health" / "flight0.json").read_text())["entries"]
    assert recorded[-1]["profiling_name"].startswith("gloo:")  # what rank 0 waits in
    assert not alive(tmp_path)


@pytest.mark.slow
def test_a_run_that_is_stopped_for_longer_than_a_hang_goes_on(small_data: Path, tmp_path: Path) -> None:
    """Like scontrol suspend: all processes, for longer than hang_s, in the middle of a step."""
    config = config_of(tmp_path / "runs", small_data, "run", health={"hang_s": 8.0})
    waits = Fault("wait", 0, (4,), flag=str(tmp_path / "waits"))
    process = started(command(TORCHRUN, config, [waits], tmp_path), tmp_path)
    deadline = time.monotonic() + TIMEOUT
    while not (tmp_path / "waits").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(processes_of(tmp_path)) == 3
    for number, seconds in ((signal.SIGSTOP, 12), (signal.SIGCONT, 1)):
        for pid in processes_of(tmp_path):
            os.kill(pid, number)
        time.sleep(seconds)
    (tmp_path / "waits.go").touch()
    assert process.wait(timeout=TIMEOUT) == 0
    assert run_status(config.run_dir).state == "trained"
    assert len(losses(config)) == 6
    assert not list((config.run_dir / "health").iterdir())


@pytest.mark.thorough  # tests of peers, on forked ranks, and of Slurm kill one each
def test_a_killed_rank_is_told_by_its_peer_and_nothing_is_left_running(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", small_data, "run")
    process = started(command(TORCHRUN, config, [Fault("kill", 1, (5,))], tmp_path), tmp_path)
    assert process.wait(timeout=TIMEOUT) == 1
    output = (tmp_path / "out.txt").read_text()
    assert "exitcode  : -9" in output
    assert "exitcode  : 75" in output
    assert "rank 0 lost its connection to another rank after step 4" in str(run_status(config.run_dir).reason)
    assert "Traceback" not in (config.run_dir / "logs" / "rank0.log").read_text()
    assert not alive(tmp_path)


BLOCKING = Fault("blocking", 0, ())


@pytest.mark.parametrize(
    ("kind", "who", "code", "reason"),
    [
        pytest.param("raise", 1, 1, "KeyError: 'a fault'", marks=pytest.mark.thorough),  # as in test_peers.py
        pytest.param("raise", 0, 1, "KeyError: 'a fault'", marks=pytest.mark.slow),
        pytest.param("mistake", 1, 2, "where: a fault; next: fix it", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_fails_alone_ends_all_where_collectives_and_destroy_block_as_nccls_do(
    small_data: Path, tmp_path: Path, kind: str, who: int, code: int, reason: str
) -> None:
    """Without a launcher that would end the others: two processes with the variables that srun sets."""
    config = config_of(tmp_path / "runs", small_data, "run")
    words = command([sys.executable], config, [BLOCKING, Fault(kind, who, (5,))], tmp_path)
    step = {"SLURM_JOB_ID": "4712", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    step |= {"SLURM_STEP_NODELIST": "localhost"}
    ranks = [started(words, tmp_path, {**step, "SLURM_PROCID": str(r), "SLURM_LOCALID": str(r)}) for r in range(2)]
    first = ranks[who].wait(timeout=TIMEOUT)
    begun = time.monotonic()
    assert [first, ranks[1 - who].wait(timeout=TIMEOUT)] == [code, code]
    took_s = time.monotonic() - begun
    print(f"the other rank exited {took_s:.1f} s later")
    assert took_s < 15
    assert reason in str(run_status(config.run_dir).reason)
    logs = [(config.run_dir / "logs" / f"rank{r}.log").read_text() for r in range(2)]
    assert f"rank {who} ({os.uname().nodename}) failed: {reason}: this rank exits" in logs[1 - who]
    assert ("Traceback" in logs[who]) == (kind == "raise")


@pytest.mark.slow
def test_a_run_whose_folder_is_removed_says_so_and_leaves_no_half_of_it(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", small_data, "run", train={"steps": 10**6}, health={"hang_s": 60.0})
    process = started(command([sys.executable], config, [], tmp_path), tmp_path)
    wait_for(config, 2)
    shutil.rmtree(config.run_dir)
    assert process.wait(timeout=TIMEOUT) == 2
    output = (tmp_path / "out.txt").read_text()
    assert "the run folder was removed" in output
    assert str(config.run_dir) in output
    assert "Traceback" not in output
    assert not config.run_dir.exists()


@pytest.mark.slow
def test_torchrun_starts_a_killed_run_again_and_it_ends_as_if_nothing_had_been(
    small_data: Path, tmp_path: Path
) -> None:
    configs = {name: config_of(tmp_path / "runs", small_data, name, train={"ledger": True}) for name in ("good", "bad")}
    for name, config in configs.items():
        (tmp_path / name).mkdir()
        flag = tmp_path / name / "killed"
        faults = [Fault("kill", 1, (5,), flag=str(flag))] if name == "bad" else []
        words = command([*TORCHRUN, "--max-restarts", "2"], config, faults, tmp_path / name)
        assert started(words, tmp_path / name).wait(timeout=TIMEOUT) == 0
        assert flag.exists() == (name == "bad")
    assert run_status(configs["bad"].run_dir).state == "trained"
    assert losses(configs["bad"]) == losses(configs["good"])
    assert ledger.read(configs["bad"].run_dir) == ledger.read(configs["good"].run_dir)


@pytest.mark.slow
def test_every_launcher_gives_the_same_run(small_data: Path, tmp_path: Path) -> None:
    """srun is a stand-in: two processes with the variables that a Slurm step sets."""
    configs = {
        name: config_of(tmp_path / "runs", small_data, name, train={"ledger": True})
        for name in ("alone", "torchrun", "srun", "submitit")
    }
    for name in ("alone", "torchrun", "srun"):
        folder = tmp_path / name
        folder.mkdir()
        words = command(TORCHRUN if name == "torchrun" else [sys.executable], configs[name], [], folder)
        step = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
        step |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
        ranks = (
            [{**step, "SLURM_PROCID": str(r), "SLURM_LOCALID": str(r)} for r in range(2)] if name == "srun" else [{}]
        )
        processes = [started(words, folder, env) for env in ranks]
        assert [process.wait(timeout=TIMEOUT) for process in processes] == [0] * len(processes)
    wait(submit(configs["submitit"], load_profile("local")), lambda row: None)
    curves = {name: losses(config) for name, config in configs.items()}
    assert len(curves["alone"]) == 6
    for name, config in configs.items():
        assert curves[name] == pytest.approx(curves["alone"], rel=1e-5)
        assert ledger.read(config.run_dir) == ledger.read(configs["alone"].run_dir)
    assert curves["torchrun"] == curves["srun"] == curves["submitit"]


@pytest.mark.slow
def test_a_submitted_run_that_loses_a_rank_is_started_again_by_itself(small_data: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "runs", small_data, "run", train={"steps": 200}, checkpoint={"every": 20, "keep": 2})
    submitted = submit(config, load_profile("local"))
    wait_for(config, 25)
    controller = int(submitted.job.job_id)
    children = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    status = wait(submitted, lambda row: None)
    assert (status.state, status.step) == ("trained", 200)
    log = (config.run_dir / "logs" / "rank0.log").read_text()
    assert "rank 0 lost its connection to another rank after step" in log
    assert log.count("from step") == 1
    assert len(losses(config)) == 200
