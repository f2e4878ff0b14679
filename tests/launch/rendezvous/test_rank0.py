"""Who is admitted to the ranks' meeting: callers without the run's secret cannot harm rank 0, whatever they send."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace

import pytest
from distributed import free_port
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bigchem.base.errors import UserError
from bigchem.launch.rendezvous.environment import Rendezvous
from bigchem.launch.rendezvous.meeting import meet
from bigchem.launch.rendezvous.members import CARD, CARD_BYTES, AbsentRankError, RankCard, Roster
from bigchem.launch.rendezvous.rank0 import CHALLENGE_BYTES, GREETING_S, SPARE_CALLERS
from bigchem.launch.rendezvous.secret import SIGNATURE_BYTES, Signer

KEY, ATTEMPT = "the secret that the ranks share", "slurm 7.0 0"
GOOD = {"rank": 1, "world_size": 2, "host": "gpu01", "cores": [0, 1]}
DEEP = b"[" * 20000


class Meeting:
    """Rank 0, in a thread, of some ranks."""

    def __init__(self, world_size: int = 2) -> None:
        self.place = Rendezvous(0, world_size, 0, "127.0.0.1", free_port(), "slurm", ATTEMPT)
        self.found: list[Roster | Exception] = []
        self._thread = self._join(0, self.found)

    def _join(self, rank: int, found: list[Roster | Exception]) -> threading.Thread:
        def join() -> None:
            try:
                found.append(meet(replace(self.place, rank=rank), 20, KEY))
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=join, daemon=True)
        thread.start()
        return thread

    def stranger(self) -> socket.socket:
        """A connection to rank 0."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.place.master_port), timeout=10)
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.005)

    def completes(self) -> bool:
        """Whether the true ranks are admitted, and all have the same roster."""
        threads = [self._thread, *(self._join(rank, self.found) for rank in range(1, self.place.world_size))]
        for thread in threads:
            thread.join(20)
        rosters = [found for found in self.found if isinstance(found, Roster)]
        for roster in rosters:
            if roster.listener is not None:
                roster.listener.close()
        ranks = list(range(self.place.world_size))
        return len(rosters) == len(ranks) and all([card.rank for card in roster.cards] == ranks for roster in rosters)


@pytest.fixture
def held() -> Iterator[Meeting]:
    """A meeting of two ranks, which must succeed whatever the test does to it."""
    held = Meeting()
    yield held
    assert held.completes(), held.found


def answer_to(held: Meeting, said: bytes, *, and_hang_up: bool = True) -> bytes:
    """Everything that rank 0 sends to a caller that sends this, until the connection ends."""
    with held.stranger() as caller:
        heard = b""
        with suppress(ConnectionError):
            caller.sendall(said)
            if and_hang_up:
                caller.shutdown(socket.SHUT_WR)
            while more := caller.recv(4096):
                heard += more
        return heard


def signed(challenge: bytes, card: bytes, key: str = KEY, attempt: str = ATTEMPT) -> bytes:
    nonce = b"0" * 32
    return b" ".join([nonce, Signer(key, attempt).signature(b"rank", challenge, nonce, card), card]) + b"\n"


def words() -> st.SearchStrategy[bytes]:
    """Arbitrary bytes, and nearly correct lines."""
    card = st.one_of(st.binary(max_size=200), st.just(json.dumps(GOOD).encode()), st.just(DEEP), st.just(b"9" * 5000))
    tag = st.one_of(st.binary(max_size=80), st.just(Signer("x" * 20, ATTEMPT).signature(b"rank")), st.just(b"f" * 64))
    return st.one_of(
        st.binary(max_size=2000),
        st.builds(lambda n, t, c: b" ".join([n, t, c]) + b"\n", st.binary(max_size=40), tag, card),
    )


@settings(max_examples=15, deadline=None)
@given(st.lists(words(), min_size=1, max_size=8))
def test_whatever_strangers_send_gets_a_challenge_only_and_the_ranks_still_meet(sent: list[bytes]) -> None:
    held = Meeting()
    for said in sent:
        assert len(answer_to(held, said)) <= CHALLENGE_BYTES
    assert held.completes(), held.found


@pytest.mark.parametrize(
    ("key", "attempt"), [("another secret of another run", ATTEMPT), (KEY, "slurm 7.0 1"), (KEY, "slurm 8.0 0")]
)
def test_another_secret_and_another_attempt_are_turned_away(held: Meeting, key: str, attempt: str) -> None:
    with held.stranger() as caller:
        challenge = caller.recv(CHALLENGE_BYTES).strip()
        caller.sendall(signed(challenge, json.dumps(GOOD).encode(), key, attempt))
        assert caller.recv(100) == b""


def test_a_line_that_was_overheard_lets_nobody_in(held: Meeting) -> None:
    with held.stranger() as first, held.stranger() as second:
        overheard = signed(first.recv(CHALLENGE_BYTES).strip(), json.dumps(GOOD).encode())
        second.recv(CHALLENGE_BYTES)
        second.sendall(overheard)
        assert second.recv(100) == b""


@pytest.mark.parametrize(
    "card",
    [
        b"",
        b"null",
        b"[1]",
        DEEP,
        b'{"rank":' * 5000,
        b'"\xff\xfe"',
        b"9" * 6000,
        *(
            json.dumps({**GOOD, **wrong}).encode()
            for wrong in (
                {"rank": "1"},
                {"rank": True},
                {"rank": 1.0},
                {"rank": -1},
                {"rank": 0},
                {"rank": 2},
                {"rank": 10**400},
                {"rank": float("nan")},
                {"rank": None},
                {"cores": "0"},
                {"cores": [[0]]},
                {"cores": [-1]},
                {"host": ["a"]},
                {"host": "h" * 300},
                {"more": 1},
            )
        ),
    ],
)
def test_a_malformed_card_costs_its_rank_the_connection_even_if_it_is_signed(held: Meeting, card: bytes) -> None:
    with held.stranger() as caller:
        caller.sendall(signed(caller.recv(CHALLENGE_BYTES).strip(), card))
        with suppress(ConnectionResetError):
            assert caller.recv(100) == b""


def test_a_line_without_end_is_cut_off(held: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigchem.launch.rendezvous.rank0.GREETING_S", 60.0)  # its length ends it, not the timeout
    assert len(answer_to(held, b"x" * (4 * CARD_BYTES), and_hang_up=False)) <= CHALLENGE_BYTES


def test_callers_that_are_gone_again_do_no_harm(held: Meeting) -> None:
    for _ in range(20):
        caller = held.stranger()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() then resets
        caller.close()


def test_a_rank_that_goes_on_talking_is_forgotten_and_may_come_again() -> None:
    held = Meeting(world_size=3)
    with held.stranger() as caller:
        card = json.dumps({**GOOD, "world_size": 3}).encode()
        caller.sendall(signed(caller.recv(CHALLENGE_BYTES).strip(), card))
        assert len(caller.recv(100)) == SIGNATURE_BYTES
        caller.sendall(b"more\n")
        assert caller.recv(100) == b""
    assert held.completes(), held.found


def test_callers_that_say_nothing_are_dropped_in_time(held: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigchem.launch.rendezvous.rank0.GREETING_S", 0.3)
    with held.stranger() as caller:
        begun = time.monotonic()
        assert caller.recv(CHALLENGE_BYTES).endswith(b"\n")
        assert caller.recv(1) == b""
        assert 0.2 < time.monotonic() - begun < 10


def test_of_too_many_callers_the_oldest_go(held: Meeting) -> None:
    begun = time.monotonic()
    with ExitStack() as crowd:
        callers = [crowd.enter_context(held.stranger()) for _ in range(SPARE_CALLERS + 30)]
        assert all(caller.recv(CHALLENGE_BYTES).endswith(b"\n") for caller in callers)
        assert all(caller.recv(1) == b"" for caller in callers[:20])
        callers[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            callers[-1].recv(1)
        assert time.monotonic() - begun < GREETING_S  # they were dropped before their timeout


SHORT_OF_FILES = """
import resource, sys
from bigchem.launch.rendezvous.environment import Rendezvous
from bigchem.launch.rendezvous.meeting import meet
resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
print(len(meet(Rendezvous(0, 2, 0, "127.0.0.1", int(sys.argv[1]), "slurm", sys.argv[2]), 20, sys.argv[3]).cards))
"""


def test_callers_beyond_the_limit_of_open_files_do_not_end_rank_0() -> None:
    port = free_port()
    words = [sys.executable, "-c", SHORT_OF_FILES, str(port), ATTEMPT, KEY]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as rank0, ExitStack() as crowd:
        theirs = replace(Rendezvous(0, 2, 0, "127.0.0.1", port, "slurm", ATTEMPT), rank=1)
        deadline = time.monotonic() + 20
        while crowd.enter_context(socket.socket()).connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(40):
            crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        assert [card.rank for card in meet(theirs, 20, KEY).cards] == [0, 1]
        assert rank0.communicate(timeout=20)[0] == "2\n"


def test_ranks_that_do_not_share_the_secret_are_told_what_to_look_at() -> None:
    place, messages = Rendezvous(0, 2, 0, "127.0.0.1", free_port(), "slurm", ATTEMPT), []

    def wait() -> None:
        try:
            meet(place, 1.0, KEY)
        except AbsentRankError as error:
            messages.append(str(error))

    rank0 = threading.Thread(target=wait)
    rank0.start()
    with pytest.raises(AbsentRankError, match="did not find rank 0"):
        meet(replace(place, rank=1), 0.2, "the secret of another run")
    rank0.join()
    assert "calls without this run's secret: " in messages[0]
    assert "do all nodes see the same rendezvous.key?" in messages[0]


def test_a_listener_without_the_secret_cannot_pass_for_rank_0() -> None:
    """It accepts every rank, and answers as rank 0 would with another secret."""
    place = Rendezvous(1, 2, 0, "127.0.0.1", free_port(), "torchrun", ATTEMPT)
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", place.master_port)) as server:

        def pose() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"c" * 32 + b"\n")
                        heard.append(connection.recv(4096))
                        connection.sendall(b"f" * 64 + b"\n" + b"f" * 64 + b' {"absent": "all"}\n')

        threading.Thread(target=pose, daemon=True).start()
        with pytest.raises(AbsentRankError, match="did not find rank 0"):
            meet(place, 0.3, KEY)
        server.shutdown(socket.SHUT_RDWR)
    assert heard
    assert not any(KEY.encode() in said for said in heard)


def test_without_a_secret_ranks_do_not_meet() -> None:
    with pytest.raises(UserError, match="share no secret"):
        meet(Rendezvous(0, 2, 0, "127.0.0.1", free_port(), "slurm", ATTEMPT), 1)


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_a_card_is_of_the_right_types_or_a_value_error(table: object) -> None:
    for value in (table, {**GOOD, "cores": table}, {**GOOD, "rank": table}):
        try:
            card = CARD.validate_json(json.dumps(value))
        except ValidationError:
            continue
        assert type(card.rank) is int
        assert all(type(core) is int for core in card.cores)


def test_the_longest_card_is_taken() -> None:
    card = RankCard(1, 2, "h" * 255, [65535] * (1 << 13))
    assert len(json.dumps(asdict(card))) + 200 < CARD_BYTES
