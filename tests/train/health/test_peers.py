"""Ranks on a stand-in for NCCL (see blocking.py): when one exits, the others leave a collective operation that would
never end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import blocking
import pytest
from distributed import forkserver, free_port

WITHIN_S = 10.0
"""Far more than needed; far less than any timeout or watchdog."""
FAILS_AFTER_S = 0.7


@dataclass(frozen=True)
class End:
    """How a rank ended. after_s: seconds after the first exit."""

    code: int
    after_s: float
    output: str


def rank(number: int, ranks: int, port: int, folder: Path, case: Callable[[int], None]) -> None:
    """A rank's process: joins the group; the others are in an all-reduce when the case begins."""
    for descriptor in (1, 2):
        os.dup2(os.open(folder / f"rank{number}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    import torch
    import torch.distributed as dist

    from bigchem.launch.rendezvous.environment import Rendezvous
    from bigchem.launch.rendezvous.process_group import start

    blocking.install()
    start(Rendezvous(number, ranks, number, "127.0.0.1", port, "test"), key="the tests' own secret")
    value = torch.ones(2)
    dist.all_reduce(value)
    assert (dist.get_backend(), value.tolist()) == ("blocking", [ranks, ranks])
    case(number)
    dist.all_reduce(value)


def ends(case: Callable[[int], None], folder: Path, ranks: int = 3) -> list[End]:
    server = forkserver()
    port = free_port()
    processes = [server.Process(target=rank, args=(n, ranks, port, folder, case)) for n in range(ranks)]
    for process in processes:
        process.start()
    ended: dict[int, float] = {}
    until = time.monotonic() + 90
    while len(ended) < ranks and time.monotonic() < until:
        ended |= {n: time.monotonic() for n, p in enumerate(processes) if n not in ended and not p.is_alive()}
        if ended:
            until = min(until, min(ended.values()) + WITHIN_S)
        time.sleep(0.01)
    for process in processes:
        process.kill()
        process.join()
    first = min(ended.values())
    texts = [(folder / f"rank{n}.txt").read_text() for n in range(ranks)]
    return [
        End(process.exitcode or 0, ended.get(n, 1e9) - first, text)
        for n, (process, text) in enumerate(zip(processes, texts, strict=True))
    ]


def rank_2_fails(number: int) -> None:
    from bigchem.train.health import peers

    if number == 2:
        time.sleep(FAILS_AFTER_S)
        peers.exit_with_peers("KeyError: 'x'", 7)


def rank_0_fails(number: int) -> None:
    from bigchem.train.health import peers

    if number == 0:
        time.sleep(FAILS_AFTER_S)
        peers.exit_with_peers("KeyError: 'x'", 7)


@pytest.mark.parametrize(("case", "who"), [pytest.param(rank_2_fails, 2, marks=pytest.mark.slow), (rank_0_fails, 0)])
def test_ranks_that_stand_in_a_collective_follow_the_one_that_fails_with_its_reason_and_code(
    tmp_path: Path, case: Callable[[int], None], who: int
) -> None:
    found = ends(case, tmp_path)
    assert [end.code for end in found] == [7, 7, 7], found
    assert max(end.after_s for end in found) < 5
    for number, end in enumerate(found):
        expected = f"rank {who} ({os.uname().nodename}) failed: KeyError: 'x': this rank exits"
        assert (expected in end.output) == (number != who)


def rank_0_is_killed(number: int) -> None:
    if number == 0:
        time.sleep(FAILS_AFTER_S)
        os.kill(os.getpid(), signal.SIGKILL)


def test_ranks_leave_when_the_one_that_serves_the_store_is_killed(tmp_path: Path) -> None:
    found = ends(rank_0_is_killed, tmp_path)
    assert [end.code for end in found] == [-signal.SIGKILL, 75, 75]
    assert all("lost the connection to rank 0" in end.output for end in found[1:])


def all_fail(number: int) -> None:
    from bigchem.train.health import peers

    time.sleep(FAILS_AFTER_S + 0.3 * number)
    peers.exit_with_peers(f"reason {number}", 10 + number)


@pytest.mark.slow
def test_of_ranks_that_fail_together_the_first_one_says_why_for_all(tmp_path: Path) -> None:
    found = ends(all_fail, tmp_path)
    assert [end.code for end in found] == [10, 10, 10]
    assert all("failed: reason 0" in end.output for end in found[1:])


def one_destroys_the_group_alone(number: int) -> None:
    from bigchem.launch.rendezvous.process_group import finish

    if number == 1:
        finish()
        os._exit(9)
    if number == 0:
        time.sleep(2)
        os._exit(5)


@pytest.mark.slow
def test_the_stand_in_waits_for_peers_that_never_come_where_a_group_is_taken_down(tmp_path: Path) -> None:
    """What finish() would do on an error path under NCCL: it ends only with the store, when rank 0 exits."""
    found = ends(one_destroys_the_group_alone, tmp_path)
    assert [end.code for end in found] == [5, 75, 75], found


def all_end_well(number: int) -> None:
    from bigchem.launch.rendezvous.process_group import finish

    time.sleep(2.0 if number == 1 else 0.0)
    finish()
    time.sleep(1.0 if number == 2 else 0.0)
    os._exit(0)


def test_an_end_that_went_well_is_nobodys_loss(tmp_path: Path) -> None:
    found = ends(all_end_well, tmp_path)
    assert [(end.code, end.output) for end in found] == [(0, "")] * 3
