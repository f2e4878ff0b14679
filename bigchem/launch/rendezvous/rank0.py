"""Rank 0's side of the meeting: it listens, has every caller prove that it is a rank of this run, and answers all when
they are there.

A caller without the run's secret gets a challenge, and nothing else. Whatever it sends, or does not, costs it its
connection, and never rank 0 its life: what it sends is bounded, and not parsed before its signature is checked.
"""

from __future__ import annotations

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
"""In which each side has to prove that it is the one looked for."""
CHALLENGE_BYTES = 33
"""A challenge and the end of its line."""
SPARE_CALLERS = 64
"""Connections without a proof that rank 0 keeps at once, beyond one for each rank; then the oldest has to go."""


@dataclass(eq=False)
class _Caller:
    """A connection to rank 0. nonce: its process's own. card: set once its signature is checked."""

    connection: socket.socket
    expires: float
    challenge: bytes = field(default_factory=lambda: secrets.token_hex(CHALLENGE_BYTES // 2).encode())
    said: bytes = b""
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
        """Waits for all ranks: see rollcall.call."""
        try:
            self._await_all(within_s)
            cards = {rank: caller.card for rank, caller in self._ranks.items()} | {0: card_of(self._place)}
            roll = [card for _, card in sorted(cards.items()) if card is not None]
            self._tell({"port": self._port, "cards": [asdict(card) for card in roll]})
        except BaseException:
            self._listener.close()
            raise
        finally:
            self._selector.close()
            for caller in [*self._strangers, *self._ranks.values()]:
                caller.connection.close()
        self._listener.setblocking(True)
        return Roster(self._port, roll, self._listener)

    def _await_all(self, within_s: float) -> None:
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        deadline = time.monotonic() + within_s
        while len(self._ranks) < self._place.world_size - 1:
            now = time.monotonic()
            if now >= deadline:
                told = absent_ranks(self._place, {0, *self._ranks}, within_s) + self._suspicion()
                self._tell({"absent": told})
                raise AbsentRankError(told, lead=True)
            for caller in [caller for caller in self._strangers if caller.expires <= now]:
                self._forget(caller)
            first = next(iter(self._strangers), None)
            until = deadline if first is None else min(deadline, first.expires)
            for key, _ in self._selector.select(max(0.0, until - now)):
                if key.data is None:
                    self._accept()
                elif key.data.connection.fileno() >= 0:  # else it was forgotten for one that came in the same instant
                    self._hear(key.data)

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
            self._forget(caller)
        if len(self._strangers) > self._place.world_size + SPARE_CALLERS:
            self._forget(next(iter(self._strangers)))

    def _make_room(self, error: OSError) -> None:
        """Gives up the oldest caller without a proof, for its file descriptor."""
        if not self._strangers:
            told = f"rank 0 cannot take a call of each of {self._place.world_size} ranks: {error.strerror}"
            raise UserError(told, "ulimit -n", "raise it")
        self._forget(next(iter(self._strangers)))

    def _hear(self, caller: _Caller) -> None:
        """Reads on. A caller that hangs up, says too much or proves nothing is forgotten."""
        try:
            more = caller.connection.recv(CARD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            more = b""
        caller.said += more
        if not more or caller.card is not None or len(caller.said) > CARD_BYTES:
            self._forget(caller)
        elif b"\n" in more:
            self._admit(caller)

    def _admit(self, caller: _Caller) -> None:
        """Takes a caller's card. UserError, everywhere, if the cards cannot all be of one job."""
        words = caller.said.removesuffix(b"\n").split(b" ", 2)
        if len(words) < 3 or not self._seal.holds(words[1], b"rank", caller.challenge, words[0], words[2]):
            self._refused += 1
            return self._forget(caller)
        try:
            card = CARD.validate_json(words[2])
        except ValueError:
            return self._forget(caller)
        if not 0 < card.rank < card.world_size:
            return self._forget(caller)
        caller.nonce, caller.card = words[0], card
        del self._strangers[caller]
        before = self._ranks.pop(card.rank, None)
        wrong = None
        if card.world_size != self._place.world_size:
            wrong = f"rank {card.rank} on {card.host} counts {card.world_size} ranks, rank 0 {self._place.world_size}"
        elif before is not None and before.card is not None and before.nonce != caller.nonce:
            wrong = f"two processes are rank {card.rank}: on {before.card.host} and {card.host}"
        elif before is not None:
            self._close(before)  # the same process calls again
        self._ranks[card.rank] = caller
        self._send(caller, self._seal.signature(b"rank 0", caller.challenge, caller.nonce))
        if wrong:
            self._tell({"mistake": wrong}, before)
            if before is not None:
                self._close(before)
            raise UserError(wrong, "environment", "start all ranks by one launcher, once")
        return None

    def _forget(self, caller: _Caller) -> None:
        self._strangers.pop(caller, None)
        if caller.card is not None and self._ranks.get(caller.card.rank) is caller:
            del self._ranks[caller.card.rank]
        self._close(caller)

    def _close(self, caller: _Caller) -> None:
        self._selector.unregister(caller.connection)
        caller.connection.close()

    def _tell(self, table: dict[str, Any], *more: _Caller | None) -> None:
        """Sends every rank a signed message."""
        body = json.dumps(table).encode()
        for caller in filter(None, [*self._ranks.values(), *more]):
            self._send(caller, self._seal.signature(b"roll", caller.challenge, caller.nonce, body) + b" " + body)

    def _send(self, caller: _Caller, line: bytes) -> None:
        with suppress(OSError):  # it is gone: the selector says so next, or it does not matter any more
            caller.connection.settimeout(GREETING_S)
            caller.connection.sendall(line + b"\n")
            caller.connection.setblocking(False)
