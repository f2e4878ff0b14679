"""The doctor's job, and ranks that do not come, on a real Slurm of two nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bigchem.launch.slurm.testbed.bed import Bed

MEETING = """
import os, sys, time
from pathlib import Path
from bigchem.launch.rendezvous.environment import rendezvous
from bigchem.launch.rendezvous.meeting import meet
from bigchem.launch.rendezvous.secret import rendezvous_key
place = rendezvous(os.environ, os.getpid())
if place.rank == 3:
    time.sleep(4)
    sys.exit()
try:
    print(meet(place, 2.0, rendezvous_key(Path(sys.argv[1]), place)))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.slow
def test_a_job_of_its_own_brings_back_what_its_nodes_found(testbed: Bed, tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "bigchem",
        "doctor",
        "--cluster",
        "testbed",
        "--json",
        "--runs",
        str(tmp_path),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    found = {check["name"]: check for check in report["checks"]}
    assert found["hosts"]["found"] == "node1: ranks 0-1; node2: ranks 2-3"
    assert "MASTER_ADDR=node1" in found["rendezvous"]["found"]
    assert "from slurm" in found["rendezvous"]["found"]
    assert {name for name, check in found.items() if check["verdict"] != "ok"} <= {"gemm"}  # four ranks on few cores
    assert [rank["local_rank"] for rank in report["ranks"]] == [0, 1, 0, 1]
    assert done.returncode == 0
    assert "RUNNING" in done.stderr


def test_a_rank_that_slurm_started_and_that_never_comes_is_named_with_its_node(testbed: Bed, tmp_path: Path) -> None:
    (tmp_path / "meet.py").write_text(MEETING)
    shape = ("--nodes=2", "--ntasks-per-node=2", "--label")
    output = testbed.call("srun", *shape, sys.executable, str(tmp_path / "meet.py"), str(tmp_path), timeout_s=30)
    line = "AbsentRankError: rank 3 of 4 (of node node2) did not come within 2 s"
    assert sorted(output.splitlines()) == [f"{rank}: {line}" for rank in (0, 1, 2)]
