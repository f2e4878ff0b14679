from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigchem.errors import UserError
from bigchem.launch.rendezvous import FIRST_PORT, PORTS, expand_nodelist, port_of, rendezvous

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


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, (0, 1, 0, "127.0.0.1", "none")),
        (TORCHRUN, (5, 8, 1, "a.b", "torchrun")),
        (SUBMITIT, (1, 2, 1, "127.0.0.1", "submitit local")),
        (SLURM, (3, 4, 1, "gpu07", "slurm")),
        ({**SLURM, "SUBMITIT_EXECUTOR": "slurm"}, (3, 4, 1, "gpu07", "slurm")),
        ({**SLURM, **TORCHRUN}, (5, 8, 1, "a.b", "torchrun")),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "gpu08"}, (3, 2, 1, "gpu08", "slurm")),
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}, (0, 1, 0, "127.0.0.1", "none")),  # inside salloc
    ],
)
def test_every_launcher_is_understood(env: dict[str, str], expected: tuple[object, ...]) -> None:
    place = rendezvous(env, pid=4321)
    assert (place.rank, place.world_size, place.local_rank, place.master_addr, place.launcher) == expected
    assert set(place.variables()) == {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}


def test_a_restarted_job_meets_at_another_port() -> None:
    first = rendezvous(SLURM, pid=1).master_port
    assert rendezvous({**SLURM, "SLURM_RESTART_COUNT": "1"}, pid=1).master_port != first


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
