"""Rank 0's side of the meeting: it listens, and tells all when they are there."""

from __future__ import annotations

import json
import platform
import selectors
import socket
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from bigchem.errors import UserError
from bigchem.launch.rendezvous import Rendezvous
from bigchem.launch.roll import AbsentError, Card, Roll, absent, card_of

GREETING_S = 2.0
"""In which a listener has to say that it is the one looked for."""
LINE = 1 << 26
"""Bytes of the longest line that is read."""


@dataclass
class _Caller:
    """A connection to rank 0, its bytes so far, and its card once that is read."""

    connection: socket.socket
    said: bytearray = field(default_factory=bytearray)
    card: Card | None = None


class Desk:
    """A listener for one meeting."""

    def __init__(self, place: Rendezvous) -> None:
        self._place = place
        self._listener = _listen(place)
        self._port = self._listener.getsockname()[1]
        self._callers: list[_Caller] = []
        self._selector = selectors.DefaultSelector()

    def serve(self, within_s: float) -> Roll:
        """Waits for all ranks: see rollcall.call."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        deadline = time.monotonic() + within_s
        cards = {0: card_of(self._place)}
        try:
            while len(cards) < self._place.world_size:
                left = deadline - time.monotonic()
                if left <= 0:
                    told = absent(self._place, cards, within_s)
                    self._tell({"absent": told})
                    raise AbsentError(told, lead=True)
                for key, _ in self._selector.select(left):
                    if key.data is None:
                        self._accept()
                    else:
                        self._hear(key.data)
                cards = self._cards()
            roll = [cards[rank] for rank in range(self._place.world_size)]
            self._tell({"port": self._port, "cards": [asdict(card) for card in roll]})
        except BaseException:
            self._listener.close()
            raise
        finally:
            self._selector.close()
            for caller in self._callers:
                caller.connection.close()
        self._listener.setblocking(True)
        return Roll(self._port, roll, self._listener)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        caller = _Caller(connection)
        self._callers.append(caller)
        self._selector.register(connection, selectors.EVENT_READ, caller)

    def _hear(self, caller: _Caller) -> None:
        """Reads on; a caller that hangs up, or that speaks of another job, is forgotten."""
        try:
            more = caller.connection.recv(65536)
        except OSError:
            more = b""
        caller.said += more
        if not more or len(caller.said) > LINE:
            self._forget(caller)
        elif caller.said.endswith(b"\n") and caller.card is None:
            try:
                card = Card(**json.loads(caller.said))
            except (ValueError, TypeError):
                card = None
            if card is None or card.key != self._place.key:
                self._forget(caller)
            else:
                caller.card = card
                self._write(caller, {"key": self._place.key})

    def _cards(self) -> dict[int, Card]:
        """The cards by rank. UserError, everywhere, if they cannot all be of one job."""
        cards = {0: card_of(self._place)}
        for card in (caller.card for caller in self._callers if caller.card is not None):
            wrong = None
            if card.world_size != self._place.world_size:
                wrong = (
                    f"rank {card.rank} on {card.host} counts {card.world_size} ranks, rank 0 {self._place.world_size}"
                )
            elif card.rank in cards:
                wrong = f"two processes are rank {card.rank}: on {cards[card.rank].host} and {card.host}"
            if wrong:
                self._tell({"mistake": wrong})
                raise UserError(wrong, "environment", "start all ranks by one launcher, once")
            cards[card.rank] = card
        return cards

    def _forget(self, caller: _Caller) -> None:
        self._selector.unregister(caller.connection)
        caller.connection.close()
        self._callers.remove(caller)

    def _tell(self, table: dict[str, Any]) -> None:
        for caller in self._callers:
            if caller.card is not None:
                self._write(caller, table)

    def _write(self, caller: _Caller, table: dict[str, Any]) -> None:
        try:
            caller.connection.settimeout(GREETING_S)
            caller.connection.sendall(json.dumps(table).encode() + b"\n")
            caller.connection.setblocking(False)
        except OSError:
            caller.card = None  # gone: its socket is closed at the end


def _listen(place: Rendezvous) -> socket.socket:
    trouble: OSError | None = None
    for port in place.ports():
        try:
            if socket.has_dualstack_ipv6():
                return socket.create_server(
                    ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096, reuse_port=False
                )
            return socket.create_server(("", port), backlog=4096)
        except OSError as error:
            trouble = error
    tried = ", ".join(map(str, place.ports()))
    reason = trouble.strerror if trouble else "none"
    raise UserError(
        f"rank 0 cannot listen on {platform.node()}, port {tried}: {reason}", "MASTER_PORT", "choose another"
    )
