"""Two ranks, as separate processes, examine their machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from distributed import run_ranks

from bigchem.base.errors import UserError

BIN = Path(sys.executable).parent
TORCHRUN = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node", "2"]


def examinations(folder: Path) -> dict[str, Any]:
    """The short form as it is, then with other code, then with another folder, on rank 1."""
    import torch
    import torch.distributed as dist

    from bigchem.launch.doctor import measure
    from bigchem.launch.rendezvous.environment import Rendezvous

    rank, device = dist.get_rank(), torch.device("cpu")
    place = Rendezvous(rank, 2, rank, "127.0.0.1", 1, "test", "key")
    found: dict[str, Any] = {}

    def refusal(run_dir: Path) -> str:
        try:
            measure.before_step_1(place, device, run_dir)
        except UserError as error:
            return str(error)
        return ""

    torch.manual_seed(5)
    before = torch.get_rng_state()
    found["as it is"] = refusal(folder / "run")
    found["random state kept"] = torch.equal(before, torch.get_rng_state())
    found["left behind"] = [path.name for path in (folder / "run").iterdir()]
    measure.SHORT = measure.Effort((64, 64), 0.0, ((1024,), (1024,)), 0.5, smi=False)
    found["another folder"] = refusal(folder / f"of-rank-{rank}")
    versions = measure._versions()
    measure._versions = lambda: {**versions, "code": f"of-rank-{rank}"}  # type: ignore[assignment]
    found["other code"] = refusal(folder / "run")
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(examinations, 2, tmp_path_factory.mktemp("examined"))


def test_the_short_form_lets_a_healthy_job_begin_and_changes_nothing(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank["as it is"] == ""
        assert rank["random state kept"]
        assert rank["left behind"] == []


def test_a_folder_that_is_not_shared_keeps_every_rank_from_beginning(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert "rank 1 on" in rank["another folder"]
        assert "cannot read what rank 0 wrote" in rank["another folder"]


def test_ranks_of_different_code_do_not_begin(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank["other code"].startswith("versions: code differs: of-rank-0: rank 0; of-rank-1: rank 1")


PROGRAM = """
import os
from bigchem.launch.doctor import measure
versions = measure._versions()
measure._versions = lambda: {**versions, "code": os.environ["RANK"]}
from bigchem.cli.main import main
main()
"""


def test_under_torchrun_rank_0_alone_prints_and_a_failed_check_is_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [*TORCHRUN, str(tmp_path / "program.py"), "doctor", "--job", "--json", "--runs", str(tmp_path / "runs")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    report = json.loads(done.stdout)
    verdicts = {check["name"]: check["verdict"] for check in report["checks"]}
    assert verdicts.pop("versions") == "fail"
    assert verdicts.pop("gemm") in ("ok", "warn")  # tests share this machine's cores
    assert set(verdicts.values()) == {"ok"}
    assert [rank["rank"] for rank in report["ranks"]] == [0, 1]
    assert all(rank["gemm"] > 1e8 for rank in report["ranks"])
    assert "from torchrun" in report["checks"][0]["found"]
    assert "exitcode  : 2" in done.stderr


DIES = """
import os, sys
if "submitit.core._submit" in sys.orig_argv:  # a rank's Python ends as it begins
    os.write(2, b"no such module\\n")
    os._exit(1)
"""


@pytest.mark.slow
def test_as_a_job_of_its_own_the_table_comes_back_and_the_folder_goes(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bigchem", "doctor", "--cluster", "local", "--runs", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["rank", "host", "local", "device"]
    assert [line.split()[0] for line in lines[1:3]] == ["0", "1"]
    assert any(line.split()[:2] == ["all-reduce", "ok"] for line in lines)
    assert "job " in done.stderr
    assert list((tmp_path / ".doctor").iterdir()) == []


def test_a_job_that_dies_without_a_report_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bigchem.launch.cluster.profile import load_profile
    from bigchem.launch.doctor import job

    monkeypatch.setattr(job, "GRACE_S", 0.5)
    monkeypatch.setattr(job, "snapshot", lambda folder: tmp_path)  # of the code that the job runs
    (tmp_path / "sitecustomize.py").write_text(DIES)
    with pytest.raises(UserError, match="ended without a report") as error:
        job.on_cluster(load_profile("local"), tmp_path / "runs", lambda line: None)
    assert str(tmp_path / "runs" / ".doctor") in str(error.value.where)
    assert "no such module" in str(error.value.hint)


@pytest.mark.parametrize(
    ("words", "match"),
    [(["--job", "--cluster", "local"], "exclude each other"), (["--nodes", "2"], "--nodes goes with --cluster")],
)
def test_options_that_do_not_go_together_are_refused(words: list[str], match: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bigchem", "doctor", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, match in done.stderr) == (2, True)
