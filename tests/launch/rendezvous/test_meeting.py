"""Ranks that meet at rank 0: real processes and sockets, without torch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from distributed import free_port
from runs import config_of

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.launch.rendezvous.environment import Rendezvous, rendezvous
from bigchem.launch.rendezvous.meeting import meet
from bigchem.launch.rendezvous.members import AbsentRankError, Roster, absent_ranks, ranges

PROCESS = """
import json, sys
from bigchem.launch.rendezvous.environment import Rendezvous
from bigchem.launch.rendezvous.meeting import meet
try:
    roster = meet(Rendezvous(**json.loads(sys.argv[1])), float(sys.argv[2]), sys.argv[3])
    print(json.dumps({"port": roster.port, "ranks": [card.rank for card in roster.cards]}))
except Exception as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
"""
KEY = "the secret that the ranks share"


@pytest.fixture
def place() -> Rendezvous:
    return Rendezvous(0, 3, 0, "127.0.0.1", free_port(), "slurm", "slurm 7.0 0", ("gpu01", "gpu01", "gpu02"))


def process(place: Rendezvous, within_s: float, key: str = KEY) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PROCESS, json.dumps(asdict(place)), str(within_s), key]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def outcomes(places: list[Rendezvous], within_s: float) -> list[dict[str, object]]:
    """The outcome of the meeting in each of several processes."""
    processes = [process(place, within_s) for place in places]
    return [json.loads(p.communicate(timeout=60)[0]) for p in processes]


def of_ranks(place: Rendezvous, *ranks: int) -> list[Rendezvous]:
    return [replace(place, rank=rank) for rank in ranks]


def in_thread(
    place: Rendezvous, within_s: float = 20, key: str = KEY
) -> tuple[threading.Thread, list[Roster | Exception]]:
    found: list[Roster | Exception] = []

    def join() -> None:
        try:
            found.append(meet(place, within_s, key))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=join)
    thread.start()
    return thread, found


def test_all_ranks_come_in_any_order(place: Rendezvous) -> None:
    for found in outcomes(of_ranks(place, 2, 1, 0), 20):
        assert found == {"port": place.master_port, "ranks": [0, 1, 2]}


def test_a_rank_that_never_comes_is_named_with_its_node_by_all_that_did(place: Rendezvous) -> None:
    begun = time.monotonic()
    for found in outcomes(of_ranks(place, 0, 1), 1.5):
        assert found["error"] == "AbsentRankError"
        assert found["message"] == "rank 2 of 3 (of node gpu02) did not come within 2 s"
    assert time.monotonic() - begun < 10


def test_a_rank_that_dies_while_others_are_awaited_counts_as_absent(place: Rendezvous) -> None:
    dies = process(replace(place, rank=1), 30)
    thread, found = in_thread(place, 2)
    time.sleep(1)
    dies.kill()
    thread.join()
    assert str(found[0]).startswith("ranks 1-2 of 3 (of nodes gpu01, gpu02)")


def test_without_rank_0_the_others_say_where_they_looked(place: Rendezvous) -> None:
    (found,) = outcomes(of_ranks(place, 1), 0.5)
    assert found["error"] == "AbsentRankError"
    assert "did not find rank 0 at 127.0.0.1 within" in str(found["message"])
    assert "refused" in str(found["message"])


def test_a_host_that_does_not_resolve_is_named_with_what_to_do(place: Rendezvous) -> None:
    with pytest.raises(UserError, match=r"no-such\.invalid does not resolve") as error:
        meet(replace(place, rank=1, master_addr="no-such.invalid"), 0.2, KEY)
    assert "setup = ['export MASTER_ADDR" in str(error.value.hint)


@pytest.fixture(params=["silent", "speaks", "another job"])
def taken(place: Rendezvous, request: pytest.FixtureRequest) -> Iterator[None]:
    """Another program has the first port: a silent listener, a web server, another job's rank 0."""
    if request.param == "another job":
        other = replace(place, world_size=2, key="slurm 6.0 0")
        thread, _ = in_thread(other)
        yield
        meet(replace(other, rank=1), 20, KEY)
        thread.join()
        return
    with socket.create_server(("", place.master_port)) as server:
        if request.param == "speaks":

            def answer() -> None:
                while True:
                    try:
                        connection, _ = server.accept()
                    except OSError:
                        return
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    connection.close()

            threading.Thread(target=answer, daemon=True).start()
        yield
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.usefixtures("taken")
def test_a_taken_port_is_passed_over_by_all_ranks(place: Rendezvous) -> None:
    time.sleep(0.2)
    begun = time.monotonic()
    for found in outcomes(of_ranks(place, 0, 1, 2), 20):
        assert found == {"port": place.ports()[1], "ranks": [0, 1, 2]}
    assert time.monotonic() - begun < 10


def test_a_port_that_somebody_chose_and_that_is_taken_is_named(place: Rendezvous) -> None:
    with socket.create_server(("", place.master_port)), pytest.raises(UserError, match=str(place.master_port)):
        meet(replace(place, launcher="torchrun"), 1, KEY)


@pytest.mark.parametrize(
    ("other", "match"),
    [({"rank": 1}, "two processes are rank 1"), ({"rank": 2, "world_size": 4}, "counts 4 ranks, rank 0 3")],
)
def test_ranks_of_two_minds_are_a_user_error(place: Rendezvous, other: dict[str, Any], match: str) -> None:
    thread, found = in_thread(replace(place, rank=1), 3)
    second, more = in_thread(replace(place, **other), 3)
    with pytest.raises(UserError, match=match):
        meet(place, 20, KEY)
    for joined in (thread, second):
        joined.join()
    assert isinstance(more[0], UserError)
    assert isinstance(found[0], UserError | AbsentRankError)  # it may find rank 0 gone already


def test_one_process_meets_itself_and_the_listener_stays_open() -> None:
    roster = meet(rendezvous({}, 4242), 1)
    assert roster.listener is not None
    with socket.create_connection(("127.0.0.1", roster.port), timeout=1):
        pass
    roster.listener.close()
    assert [card.rank for card in roster.cards] == [0]
    assert roster.cards[0].cores


def test_a_run_whose_other_rank_never_comes_names_it_and_asks_to_be_started_again(
    small_data: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path / "runs", small_data, "run", health={"rendezvous_s": 1.0})
    (tmp_path / "run.toml").write_text(toml.dump(config))
    five = rendezvous({}, 1).variables(free_port()) | {"WORLD_SIZE": "2"}
    words = [sys.executable, "-m", "bigchem", "train", str(tmp_path / "run.toml")]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **five}, cwd=tmp_path
    )
    assert done.returncode == 75
    assert done.stderr == "error: rank 1 of 2 did not come within 1 s\n"


def test_many_missing_ranks_are_told_in_short() -> None:
    nodes = tuple(f"gpu{rank // 8:02d}" for rank in range(64))
    place = Rendezvous(0, 64, 0, "gpu00", 20000, "slurm", "k", nodes)
    came = [rank for rank in range(64) if rank not in (3, 8, 9, 10, 63)]
    assert absent_ranks(place, came, 60) == (
        "ranks 3, 8-10, 63 of 64 (of nodes gpu00, gpu01, gpu07) did not come within 60 s"
    )
    assert absent_ranks(replace(place, nodes=()), came, 60) == "ranks 3, 8-10, 63 of 64 did not come within 60 s"
    assert ranges([]) == ""


def test_absence_may_pass_and_is_a_connection_error() -> None:
    assert issubclass(AbsentRankError, ConnectionError)
