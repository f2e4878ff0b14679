"""How Slurm's programs are called. The programs are stand-ins: the tests check what reaches them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bigchem.launch.slurm import client


def program(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_variables_of_a_surrounding_job_are_dropped_and_those_that_choose_a_cluster_stay() -> None:
    job = {"SLURM_MEM_PER_CPU": "100", "SLURM_CPU_BIND": "x", "SBATCH_QOS": "q", "SRUN_DEBUG": "3", "PMIX_RANK": "0"}
    rank = {"PMI_RANK": "1", "RANK": "3", "MASTER_ADDR": "gpu1", "SUBMITIT_EXECUTOR": "slurm"}
    mine = {"PATH": "/bin", "SLURM_CONF": "/etc/slurm.conf", "SLURM_CLUSTERS": "b", "HOME": "/root"}
    assert client.clean({**job, **rank, **mine}) == mine


def test_a_program_does_not_see_the_surrounding_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "squeue", 'echo "${SLURM_MEM_PER_CPU:-unset}"', monkeypatch)
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    assert client.ask("squeue").out == "unset\n"


def test_the_own_environment_is_clean_only_while_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with client.clean_environment():
        assert "SLURM_JOB_ID" not in os.environ
    assert os.environ["SLURM_JOB_ID"] == "12"


def test_a_program_that_hangs_fails_or_is_missing_gives_its_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "squeue", "exec sleep 30", monkeypatch)
    program(tmp_path, "scontrol", "echo 'slurm_load_ctl_conf error: no contact' >&2; exit 1", monkeypatch)
    assert client.ask("squeue", timeout_s=0.2).trouble == "squeue has not answered for 0 s"
    assert client.ask("scontrol").trouble == "slurm_load_ctl_conf error: no contact"
    assert "No such file" in str(client.ask("no-such-program").trouble)


def test_the_name_of_the_cluster_is_asked_for_and_inside_a_job_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_CLUSTER_NAME", raising=False)
    program(tmp_path, "scontrol", "echo 'ClusterName             = green'", monkeypatch)
    client._named.cache_clear()
    assert client.cluster_name({}) == "green"
    assert client.cluster_name({"SLURM_CLUSTER_NAME": "blue"}) == "blue"
    client._named.cache_clear()
