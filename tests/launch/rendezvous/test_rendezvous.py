from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.base.errors import UserError
from bigchem.launch.rendezvous.environment import (
    CANDIDATES,
    FIRST_PORT,
    PORTS,
    expand_nodelist,
    port_of,
    rendezvous,
    threads_of,
)

SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "1234",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "a.b", "MASTER_PORT": "1234"}
SUBMITIT = {
    "SUBMITIT_EXECUTOR": "local",
    "SUBMITIT_LOCAL_JOB_ID": "77",
    "SUBMITIT_LOCAL_GLOBALID": "1",
    "SUBMITIT_LOCAL_NTASKS": "2",
    "SUBMITIT_LOCAL_LOCALID": "1",
}
ONE_TASK = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NODELIST": "gpu07"}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, (0, 1, 0, "127.0.0.1", "none")),
        (TORCHRUN, (5, 8, 1, "a.b", "torchrun")),
        (SUBMITIT, (1, 2, 1, "127.0.0.1", "submitit local")),
        (SLURM, (3, 4, 1, "gpu07", "slurm")),
        ({**SLURM, "SUBMITIT_EXECUTOR": "slurm"}, (3, 4, 1, "gpu07", "slurm")),
        ({**SLURM, **TORCHRUN}, (5, 8, 1, "a.b", "torchrun")),
        (  # a step on some of the job's nodes
            {**SLURM, "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "gpu08", "SLURM_PROCID": "1"},
            (1, 2, 1, "gpu08", "slurm"),
        ),
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}, (0, 1, 0, "127.0.0.1", "none")),  # inside salloc
        (  # the shell that salloc may start on the node: a step of one task
            {**SLURM, "SLURM_STEP_ID": "4294967290", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", **ONE_TASK},
            (0, 1, 0, "gpu07", "slurm"),
        ),
        ({**SLURM, **SUBMITIT}, (1, 2, 1, "127.0.0.1", "submitit local")),  # submit --cluster local, inside salloc
        ({**SLURM, "SLURM_ARRAY_JOB_ID": "1230", "SLURM_ARRAY_TASK_ID": "4"}, (3, 4, 1, "gpu07", "slurm")),
        ({**SLURM, "MASTER_ADDR": "10.0.0.7"}, (3, 4, 1, "10.0.0.7", "slurm")),  # names do not resolve
        ({**SLURM, "MASTER_ADDR": ""}, (3, 4, 1, "gpu07", "slurm")),
        ({k: v for k, v in SLURM.items() if k != "SLURM_JOB_NODELIST"}, (3, 4, 1, "localhost", "slurm")),
    ],
)
def test_every_launcher_is_understood(env: dict[str, str], expected: tuple[object, ...]) -> None:
    place = rendezvous(env, pid=4321)
    assert (place.rank, place.world_size, place.local_rank, place.master_addr, place.launcher) == expected
    assert set(place.variables()) == {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}


def test_a_restarted_job_meets_at_another_port() -> None:
    first = rendezvous(SLURM, pid=1).master_port
    assert rendezvous({**SLURM, "SLURM_RESTART_COUNT": "1"}, pid=1).master_port != first


def test_a_key_is_one_attempt_of_one_step() -> None:
    others = [{}, {"SLURM_RESTART_COUNT": "1"}, {"SLURM_STEP_ID": "1"}, {"SLURM_JOB_ID": "1235"}]
    assert len({rendezvous({**SLURM, **other}, pid=1).key for other in others}) == len(others)
    assert len({rendezvous({**SLURM, "SLURM_PROCID": rank}, pid=1).key for rank in "0123"}) == 1


@given(st.integers(0, 2**31))
def test_every_candidate_port_is_another_one_in_the_range(job: int) -> None:
    ports = rendezvous({**SLURM, "SLURM_JOB_ID": str(job)}, pid=1).ports()
    assert len(set(ports)) == CANDIDATES
    assert all(FIRST_PORT <= port < FIRST_PORT + PORTS for port in ports)


def test_a_chosen_port_comes_first_and_torchruns_is_the_only_one() -> None:
    assert rendezvous({**SLURM, "MASTER_PORT": "29500"}, pid=1).ports()[0] == 29500
    assert rendezvous(TORCHRUN, pid=1).ports() == (1234,)


@pytest.mark.parametrize(
    ("env", "nodes"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, ("gpu07", "gpu07", "gpu08", "gpu08")),
        ({"SLURM_STEP_TASKS_PER_NODE": "3,1"}, ("gpu07", "gpu07", "gpu07", "gpu08")),
        (
            {"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_DISTRIBUTION": "block:block"},
            ("gpu07", "gpu07", "gpu08", "gpu08"),
        ),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_DISTRIBUTION": "cyclic"}, ()),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x3)"}, ("gpu07", "gpu07", "gpu08", "gpu08")),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, ()),
        ({}, ()),
    ],
)
def test_the_node_of_each_rank_is_known_where_slurm_says_it(env: dict[str, str], nodes: tuple[str, ...]) -> None:
    assert rendezvous({**SLURM, **env}, pid=1).nodes == nodes


def test_a_rank_beyond_the_number_of_processes_is_a_user_error() -> None:
    with pytest.raises(UserError, match="says rank 3 of 2 processes"):
        rendezvous({**SLURM, "SLURM_STEP_NUM_TASKS": "2"}, pid=1)


@pytest.mark.parametrize(
    ("mine", "others", "granted", "threads"),
    [
        (range(8), [range(8)], None, 8),
        (range(8), [range(8), range(8)], None, 4),  # two share eight
        (range(4), [range(4), range(4, 8)], None, 4),  # Slurm has bound them
        (range(8), [range(8), range(8)], 2, 2),  # Slurm granted two and has bound nobody
        (range(1), [range(1)], 12, 1),  # granted twelve, bound to one: srun without --cpus-per-task
        (range(2), [range(2)] * 3, None, 1),
    ],
)
def test_threads_are_the_cores_of_a_process_alone(
    mine: range, others: list[range], granted: int | None, threads: int
) -> None:
    assert threads_of(frozenset(mine), [frozenset(other) for other in others], granted) == threads


@given(st.integers(0, 2**31), st.integers(0, 1000))
def test_ports_are_below_the_ephemeral_range(job: int, restarts: int) -> None:
    assert FIRST_PORT <= port_of(job, restarts) < FIRST_PORT + PORTS <= 32768


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("gpu01", ["gpu01"]),
        ("gpu[01-03,07]", ["gpu01", "gpu02", "gpu03", "gpu07"]),
        ("gpu[9-11]", ["gpu9", "gpu10", "gpu11"]),
        ("a1,b[2-3],c", ["a1", "b2", "b3", "c"]),
        ("r[1-2]n[01-02]", ["r1n01", "r1n02", "r2n01", "r2n02"]),
        ("gpu[1-2].cluster", ["gpu1.cluster", "gpu2.cluster"]),
    ],
)
def test_nodelists_are_expanded(text: str, nodes: list[str]) -> None:
    assert expand_nodelist(text) == nodes


@pytest.mark.parametrize("text", ["", "gpu[a-b]", "gpu[]"])
def test_a_nodelist_that_cannot_be_read_is_a_user_error(text: str) -> None:
    with pytest.raises(UserError, match="nodelist"):
        expand_nodelist(text)


def test_a_variable_that_is_no_number_is_named() -> None:
    with pytest.raises(UserError, match="SLURM_PROCID = 'x'"):
        rendezvous({**SLURM, "SLURM_PROCID": "x"}, pid=1)
