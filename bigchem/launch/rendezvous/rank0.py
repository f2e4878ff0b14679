"""Rank 0's side of the meeting: it listens, authenticates every caller as a rank of this run, and answers all once they
are there.

A caller without the run's secret gets only a challenge. Whatever it sends costs it its connection and cannot harm rank
0: input is bounded, and not parsed before its signature is checked.
"""

import errno
import json
import secrets
import selectors
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from bigchem.base.errors import UserError
from bigchem.launch.rendezvous.environment import Rendezvous
from bigchem.launch.rendezvous.listener import listen
from bigchem.launch.rendezvous.members import CARD, CARD_BYTES, AbsentRankError, RankCard, Roster, absent_ranks, card_of
from bigchem.launch.rendezvous.secret import FILE, Signer

GREETING_S = 2.0
"""Time in which each side has to prove its identity."""
CHALLENGE_BYTES = 33
"""A challenge and its line end."""
SPARE_CALLERS = 64
"""Unauthenticated connections that rank 0 keeps, beyond one for each rank; then it drops the oldest."""


@dataclass(eq=False)
class _Caller:
    """A connection to rank 0. nonce: of the calling process. card: set once its signature is checked."""

    connection: socket.socket
    expires: float
    challenge: bytes = field(default_factory=lambda: secrets.token_hex(CHALLENGE_BYTES // 2).encode())
    received: bytes = b""
    nonce: bytes = b""
    card: RankCard | None = None


class MeetingServer:
    """A listener for one meeting."""

    def __init__(self, place: Rendezvous, key: str) -> None:
        self._place = place
        self._seal = Signer(key, place.key)
        self._listener = listen(place)
        self._port = self._listener.getsockname()[1]
        self._strangers: dict[_Caller, None] = {}  # oldest first
        self._ranks: dict[int, _Caller] = {}
        self._refused = 0
        self._selector = selectors.DefaultSelector()

    def serve(self, within_s: float) -> Roster:
        """Waits for all ranks: see meeting.meet."""
        try:
            self._await_all(within_s)
            cards = {rank: caller.card for rank, caller in self._ranks.items()} | {0: card_of(self._place)}
            roster = [card for _, card in sorted(cards.items()) if card is not None]
            self._broadcast({"port": self._port, "cards": [asdict(card) for card in roster]})
        except BaseException:
            self._listener.close()
            raise
        finally:
            self._selector.close()
            for caller in [*self._strangers, *self._ranks.values()]:
                caller.connection.close()
        self._listener.setblocking(True)
        return Roster(self._port, roster, self._listener)

    def _await_all(self, within_s: float) -> None:
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        deadline = time.monotonic() + within_s
        while len(self._ranks) < self._place.world_size - 1:
            now = time.monotonic()
            if now >= deadline:
                absent = absent_ranks(self._place, {0, *self._ranks}, within_s) + self._suspicion()
                self._broadcast({"absent": absent})
                raise AbsentRankError(absent, lead=True)
            for caller in [caller for caller in self._strangers if caller.expires <= now]:
                self._drop(caller)
            first = next(iter(self._strangers), None)
            until = deadline if first is None else min(deadline, first.expires)
            for key, _ in self._selector.select(max(0.0, until - now)):
                if key.data is None:
                    self._accept()
                elif key.data.connection.fileno() >= 0:  # else it was dropped for one that came in the same batch
                    self._read(key.data)

    def _suspicion(self) -> str:
        if not self._refused:
            return ""
        return f"; calls without this run's secret: {self._refused}; do all nodes see the same {FILE}?"

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room(error)
            return  # else the caller is gone already
        caller = _Caller(connection, time.monotonic() + GREETING_S)
        self._strangers[caller] = None
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, caller)
        try:
            connection.send(caller.challenge + b"\n")
        except OSError:
            self._drop(caller)
        if len(self._strangers) > self._place.world_size + SPARE_CALLERS:
            self._drop(next(iter(self._strangers)))

    def _make_room(self, error: OSError) -> None:
        """Drops the oldest unauthenticated caller to free its file descriptor."""
        if not self._strangers:
            message = f"rank 0 cannot accept a connection from each of {self._place.world_size} ranks: {error.strerror}"
            raise UserError(message, "ulimit -n", "raise it")
        self._drop(next(iter(self._strangers)))

    def _read(self, caller: _Caller) -> None:
        """Reads more. A caller that hangs up, sends too much or proves nothing is dropped."""
        try:
            more = caller.connection.recv(CARD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        caller.received += more
        if not more or caller.card is not None or len(caller.received) > CARD_BYTES:
            self._drop(caller)
        elif b"\n" in more:
            self._admit(caller)

    def _admit(self, caller: _Caller) -> None:
        """Accepts a caller's card. UserError, on all ranks, if the cards cannot all belong to one job."""
        parts = caller.received.removesuffix(b"\n").split(b" ", 2)
        if len(parts) < 3 or not self._seal.holds(parts[1], b"rank", caller.challenge, parts[0], parts[2]):
            self._refused += 1
            return self._drop(caller)
        try:
            card = CARD.validate_json(parts[2])
        except ValueError:
            return self._drop(caller)
        if not 0 < card.rank < card.world_size:
            return self._drop(caller)
        caller.nonce, caller.card = parts[0], card
        del self._strangers[caller]
        before = self._ranks.pop(card.rank, None)
        mistake = None
        if card.world_size != self._place.world_size:
            mistake = f"rank {card.rank} on {card.host} counts {card.world_size} ranks, rank 0 {self._place.world_size}"
        elif before is not None and before.card is not None and before.nonce != caller.nonce:
            mistake = f"two processes are rank {card.rank}: on {before.card.host} and {card.host}"
        elif before is not None:
            self._close(before)  # the same process calls again
        self._ranks[card.rank] = caller
        self._send(caller, self._seal.signature(b"rank 0", caller.challenge, caller.nonce))
        if mistake:
            self._broadcast({"mistake": mistake}, before)
            if before is not None:
                self._close(before)
            raise UserError(mistake, "environment", "start all ranks with one launcher, once")
        return None

    def _drop(self, caller: _Caller) -> None:
        self._strangers.pop(caller, None)
        if caller.card is not None and self._ranks.get(caller.card.rank) is caller:
            del self._ranks[caller.card.rank]
        self._close(caller)

    def _close(self, caller: _Caller) -> None:
        self._selector.unregister(caller.connection)
        caller.connection.close()

    def _broadcast(self, table: dict[str, Any], *more: _Caller | None) -> None:
        """Sends every rank a signed message."""
        body = json.dumps(table).encode()
        for caller in filter(None, [*self._ranks.values(), *more]):
            self._send(caller, self._seal.signature(b"roster", caller.challenge, caller.nonce, body) + b" " + body)

    def _send(self, caller: _Caller, line: bytes) -> None:
        with suppress(OSError):  # it is gone: the selector reports that next, or it no longer matters
            caller.connection.settimeout(GREETING_S)
            caller.connection.sendall(line + b"\n")
            caller.connection.setblocking(False)
