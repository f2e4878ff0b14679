from __future__ import annotations

import os

import pytest

from bigchem.launch.cluster.profile import ClusterProfile, load_profile
from bigchem.launch.workloads.sweep import at_a_time

LOCAL = load_profile("local")
GPUS = ClusterProfile(executor="local", gpus_per_node=2, tasks_per_node=2)
SLURM = ClusterProfile(executor="slurm", tasks_per_node=4)


@pytest.mark.parametrize(
    ("cores", "runs", "tasks", "threads"), [(2, 2, 1, "1"), (8, 2, 2, "2"), (16, 4, 2, "2"), (2, 5, 1, "1")]
)
def test_runs_on_this_machine_divide_its_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, runs: int, tasks: int, threads: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    found = at_a_time(LOCAL, runs)
    assert (found.max_concurrent, found.tasks_per_node, found.env["OMP_NUM_THREADS"]) == (runs, tasks, threads)


def test_what_was_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    chosen = LOCAL.model_copy(update={"env": {"OMP_NUM_THREADS": "3", "A": "b"}})
    found = at_a_time(chosen, 2, ["tasks_per_node"])
    assert (found.tasks_per_node, found.env) == (2, {"OMP_NUM_THREADS": "3", "A": "b"})


@pytest.mark.parametrize("profile", [GPUS, SLURM])
def test_on_gpus_and_on_slurm_only_the_number_of_runs_changes(profile: ClusterProfile) -> None:
    assert at_a_time(profile, 3) == profile.model_copy(update={"max_concurrent": 3})
