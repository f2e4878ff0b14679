"""Owner records of run folders, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bigchem.run import ownership
from bigchem.run.ownership import Owner, Process


def owned(run_dir: Path, job: str = "7", executor: str = "slurm", **more: Any) -> Owner:
    """Makes a job of Slurm's, or a process of this machine, the owner of a run."""
    run_dir.mkdir(parents=True, exist_ok=True)
    process = None if executor == "slurm" else Process.of(int(job))
    fields = {"token": f"token {job}", "user": "ada", "time": 1000.0, "process": process, **more}
    ownership.write(run_dir, Owner(executor=executor, job=job, **fields))
    written = ownership.read(run_dir)
    assert written is not None
    return written


def job_of(run_dir: Path) -> str:
    """The job, or process, that has a run."""
    owner = ownership.read(run_dir)
    assert owner is not None
    return owner.job
