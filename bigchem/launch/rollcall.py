"""All ranks meet at rank 0 before anything else: who is missing is told by name, within a minute.

Rank 0 listens on the first free one of its ports; the others try them in turn, until one answers with the key of this
attempt of this job. So a port that is taken, even by another job's rank 0, costs nothing. torch's own store would wait
without end for a listener that says nothing, and its timeout names nobody. The listener is then handed to torch.
"""

from __future__ import annotations

import json
import os
import platform
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bigchem.errors import UserError
from bigchem.launch.rendezvous import Rendezvous

GREETING_S = 2.0
"""In which a listener has to say that it is the one looked for."""
MARGIN_S = 30.0
"""That a rank which has been greeted waits beyond its own time: rank 0 may have begun later."""
LINE = 1 << 26
"""Bytes of the longest line that is read."""
Tickets = dict[int, "Card"]


class AbsentError(ConnectionError):
    """Not all ranks came. It may pass: a node that was slow, or is gone."""


@dataclass(frozen=True)
class Card:
    """What a rank says of itself. cores: that it may run on."""

    key: str
    rank: int
    world_size: int
    host: str
    cores: list[int]


@dataclass(frozen=True)
class Roll:
    """All ranks. port: where they met. listener: rank 0's, still open."""

    port: int
    cards: list[Card]
    listener: socket.socket | None = None


def card_of(place: Rendezvous) -> Card:
    """This process's own."""
    host = os.environ.get("SLURMD_NODENAME") or platform.node()
    return Card(place.key, place.rank, place.world_size, host, sorted(os.sched_getaffinity(0)))


def call(place: Rendezvous, within_s: float) -> Roll:
    """Waits until all ranks have come. AbsentError, on every rank that came, if one has not within so many seconds;
    UserError where waiting longer would not help."""
    return _Desk(place).serve(within_s) if place.rank == 0 else _join(place, within_s)


@dataclass
class _Caller:
    """A connection to rank 0, its bytes so far, and its card once that is read."""

    connection: socket.socket
    said: bytearray = field(default_factory=bytearray)
    card: Card | None = None


class _Desk:
    """Rank 0's side."""

    def __init__(self, place: Rendezvous) -> None:
        self._place = place
        self._listener = _listen(place)
        self._port = self._listener.getsockname()[1]
        self._callers: list[_Caller] = []
        self._selector = selectors.DefaultSelector()

    def serve(self, within_s: float) -> Roll:
        self._selector.register(self._listener, selectors.EVENT_READ)
        deadline = time.monotonic() + within_s
        cards = {0: card_of(self._place)}
        try:
            while len(cards) < self._place.world_size:
                left = deadline - time.monotonic()
                if left <= 0:
                    told = absent(self._place, cards, within_s)
                    self._tell({"absent": told})
                    raise AbsentError(told)
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


def _join(place: Rendezvous, within_s: float) -> Roll:
    """Every other rank's side."""
    deadline = time.monotonic() + within_s
    line = json.dumps(asdict(card_of(place))).encode() + b"\n"
    pause, trouble = 0.05, ""
    while True:
        for port in place.ports():
            try:
                with socket.create_connection((place.master_addr, port), timeout=GREETING_S) as connection:
                    connection.sendall(line)
                    answers = connection.makefile("rb")
                    if json.loads(answers.readline(LINE) or b"{}").get("key") != place.key:
                        trouble = f"port {port} is another program's"
                        continue
                    connection.settimeout(max(0.0, deadline - time.monotonic()) + MARGIN_S)
                    return _understood(place, json.loads(answers.readline(LINE) or b"{}"))
            except socket.gaierror as error:
                trouble = f"{place.master_addr} does not resolve: {error.strerror}"
                break
            except AbsentError:
                raise
            except (OSError, ValueError, AttributeError) as error:
                trouble = f"port {port}: {getattr(error, 'strerror', None) or error}"
        if time.monotonic() >= deadline:
            raise _unreached(place, within_s, trouble)
        time.sleep(pause)
        pause = min(1.0, 1.5 * pause)


def _understood(place: Rendezvous, told: dict[str, Any]) -> Roll:
    if "absent" in told:
        raise AbsentError(told["absent"])
    if "mistake" in told:
        raise UserError(told["mistake"], "environment", "start all ranks by one launcher, once")
    if "port" not in told:
        raise AbsentError(f"rank {place.rank}: rank 0 at {place.master_addr} went away before all ranks had come")
    return Roll(told["port"], [Card(**card) for card in told["cards"]])


def _unreached(place: Rendezvous, within_s: float, trouble: str) -> Exception:
    host = platform.node()
    if "does not resolve" in trouble:
        return UserError(
            f"rank {place.rank} on {host}: {trouble}",
            "MASTER_ADDR",
            "the node's name must be known inside the container too (/etc/hosts, DNS); or add to the cluster profile: "
            "setup = ['export MASTER_ADDR=$(hostname -I | cut -d\" \" -f1)']",
        )
    found = f"did not find rank 0 at {place.master_addr} within {within_s:.0f} s"
    return AbsentError(f"rank {place.rank} on {host} {found} (last: {trouble})")


def absent(place: Rendezvous, cards: Sequence[int] | dict[int, Card], within_s: float) -> str:
    """One line: which ranks did not come, and of which nodes."""
    missing = [rank for rank in range(place.world_size) if rank not in cards]
    nodes = sorted({place.nodes[rank] for rank in missing}) if place.nodes else []
    where = f" (of {'node' if len(nodes) == 1 else 'nodes'} {', '.join(nodes)})" if nodes else ""
    word = "rank" if len(missing) == 1 else "ranks"
    return f"{word} {spans(missing)} of {place.world_size}{where} did not come within {within_s:.0f} s"


def spans(numbers: Sequence[int]) -> str:
    """Sorted numbers in short: `3, 5-7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)
