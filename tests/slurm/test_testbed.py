"""The testbed itself: its nodes are separate, it stops completely, and two run side by side."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.launch.slurm.testbed.bed import Bed
from bigchem.launch.slurm.testbed.conf import free_port


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short name: the sockets below it have long ones."""
    return tmp_path_factory.mktemp("b")


def test_nodes_have_names_gpus_and_find_each_other(testbed: Bed) -> None:
    asked = "echo $(hostname) $CUDA_VISIBLE_DEVICES $(getent hosts node1 node2 | wc -l)"
    output = testbed.call("srun", "--nodes=2", "--gpus-per-node=2", "--label", "sh", "-c", asked, timeout_s=20)
    assert sorted(output.splitlines()) == ["0: node1 0,1 2", "1: node2 0,1 2"]


def test_submitit_learns_from_the_stand_in_how_a_job_ended(testbed: Bed) -> None:
    job = testbed.call("sbatch", "--parsable", "--output=/dev/null", "--wrap=exit 3").strip()
    question = ["sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", job]
    deadline = time.monotonic() + 20
    while "FAILED" not in (output := testbed.call(*question)):
        assert time.monotonic() < deadline, output
        time.sleep(0.1)
    assert output.splitlines() in (["JobID|State|NodeList", f"{job}|FAILED|{name}"] for name in testbed.nodes)
    assert testbed.call(*question[:-1], "1") == "JobID|State|NodeList\n"  # a job it never had
    with pytest.raises(UserError, match="only knows"):
        testbed.call("sacct", "--format=Elapsed")


def test_the_commands_start_a_second_one_beside_it_and_stop_it_whole(testbed: Bed, short: Path) -> None:
    folder, nap = short, f"sleep {1_000_000 + os.getpid()}"

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "bigchem", "testbed", words[0], "--folder", str(folder), *words[1:]]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    result = command("start", "--nodes", "1")
    assert result.returncode == 0, result.stderr
    try:
        assert "node1" in result.stdout
        assert f"export SLURM_CONF={folder}/slurm.conf" in result.stdout
        again = command("start")
        assert (again.returncode, "is already running" in again.stderr) == (2, True)
        assert command("run", "sh", "-c", "squeue; exit 7").returncode == 7
        assert command("run", "sbatch", "--output=/dev/null", f"--wrap={nap}").returncode == 0
        deadline = time.monotonic() + 20
        while not running(nap):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "no node 'node9'" in command("kill-node", "node9").stderr
        assert command("kill-node", "node1").returncode == 0
        assert not running(nap)
        assert command("start-node", "node1").returncode == 0
    finally:
        assert command("stop").returncode == 0
    assert not running(str(folder / "slurm.conf"))
    assert "stopped" in command("status").stdout
    assert "idle" in testbed.status()


def running(words: str) -> bool:
    listed = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True)
    return any(words in line and line[0] != "Z" and "--folder" not in line for line in listed.stdout.splitlines())


def test_a_tied_one_ends_with_its_process(testbed: Bed, short: Path) -> None:
    program = (
        "import os; from pathlib import Path; from bigchem.launch.slurm.testbed.bed import Bed\n"
        f"Bed(Path({str(short)!r}), ('node1',), {free_port(1)}).start(tied=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, env=os.environ)
    assert done.returncode == -9
    deadline = time.monotonic() + 20
    while running(str(short / "slurm.conf")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_it_runs_without_root(testbed: Bed, short: Path) -> None:
    """If the tests run as root: as an unprivileged user of a user namespace."""
    nobody = ["unshare", "--user", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        line = [*nobody, sys.executable, "-m", "bigchem", "testbed", words[0], "--folder", str(short), *words[1:]]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    started = command("start")
    assert started.returncode == 0, started.stderr
    try:
        result = command("run", "srun", "--nodes=2", "sh", "-c", "echo $(hostname) $(id -u)")
    finally:
        assert command("stop").returncode == 0
    me = os.geteuid() or 65534
    assert sorted(result.stdout.splitlines()) == [f"node1 {me}", f"node2 {me}"], result.stderr
    assert not running(str(short / "slurm.conf"))
