"""Calls Slurm's programs without the variables of a surrounding job, and always with a timeout.

sbatch, srun and salloc read options from variables too, and sbatch hands its whole environment to the job. Inside an
salloc, `SLURM_MEM_PER_CPU` made srun refuse the new job's step, and `SLURM_CPU_BIND` bound it to the wrong cores.
"""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

TIMEOUT_S = 5.0
"""Clients hang for minutes when slurmctld is down."""
INHERITED = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SALLOC_", "SUBMITIT_", "PMI_", "PMIX_", "PMI2_")
"""Prefixes of variables that belong to a surrounding job, or that would set options the profile does not have."""
RANKS = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Variables that torchrun sets for its workers: a new job has its own ranks."""
PASSED_ON = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS")
"""Variables by which a shell chooses its cluster: every call has to choose the same one."""


@dataclass(frozen=True)
class Answer:
    """A program's output. trouble: why it is unusable, in one line; None if the program succeeded."""

    out: str = ""
    trouble: str | None = None


def is_inherited(name: str) -> bool:
    """Whether a variable must not reach Slurm's programs and the jobs that they start."""
    return name not in PASSED_ON and (name.startswith(INHERITED) or name in RANKS)


def clean(env: Mapping[str, str]) -> dict[str, str]:
    """An environment without inherited variables. Pure."""
    return {name: value for name, value in env.items() if not is_inherited(name)}


@contextmanager
def clean_environment() -> Iterator[None]:
    """Cleans this process's own environment while entered: submitit passes it to sbatch."""
    removed = {name: os.environ.pop(name) for name in list(os.environ) if is_inherited(name)}
    try:
        yield
    finally:
        os.environ.update(removed)


def ask(*command: str, timeout_s: float = TIMEOUT_S) -> Answer:
    """Calls a Slurm program and returns its output."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env=clean(os.environ),
        )
    except subprocess.TimeoutExpired:
        return Answer(trouble=f"{command[0]} has not answered for {timeout_s:.0f} s")
    except OSError as error:
        return Answer(trouble=f"{command[0]}: {error.strerror}")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return Answer(done.stdout, lines[-1] if lines else f"{command[0]} ended with exit code {done.returncode}")
    return Answer(done.stdout)


@cache
def _named(conf: str | None) -> str | None:
    for line in ask("scontrol", "show", "config").out.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "ClusterName":
            return value.strip()
    return None


def cluster_name(env: Mapping[str, str] = os.environ) -> str | None:
    """The name of the cluster that this process talks to; None if Slurm is not installed or does not answer."""
    if name := env.get("SLURM_CLUSTER_NAME"):
        return name
    found = _named(env.get("SLURM_CONF"))
    if found is None:  # it may answer next time
        _named.cache_clear()
    return found


def step_lives(step: str) -> bool | None:
    """Whether a job's step (`12.0`) is running; None if Slurm does not say."""
    answer = ask("squeue", "--steps", "--noheader", "--format=%i", "--jobs", step.partition(".")[0])
    if answer.trouble is not None:
        return False if "Invalid job id" in answer.trouble else None
    return step in answer.out.split()
