"""All ranks meet at rank 0 before anything else: who is missing is told by name, within a minute.

Rank 0 listens on the first free one of its ports; the others try them in turn, until one answers with the key of this
attempt of this job. So a port that is taken, even by another job's rank 0, costs nothing. torch's own store would wait
without end for a listener that says nothing, and its timeout names nobody. The listener is then handed to torch.
"""

from __future__ import annotations

import json
import platform
import socket
import time
from dataclasses import asdict
from typing import Any

from bigchem.errors import UserError
from bigchem.launch.desk import GREETING_S, LINE, Desk
from bigchem.launch.rendezvous import Rendezvous
from bigchem.launch.roll import AbsentError, Card, Roll, card_of

MARGIN_S = 30.0
"""That a rank which has been greeted waits beyond its own time: rank 0 may have begun later."""


def call(place: Rendezvous, within_s: float) -> Roll:
    """Waits until all ranks have come. AbsentError, on every rank that came, if one has not within so many seconds;
    UserError where waiting longer would not help."""
    return Desk(place).serve(within_s) if place.rank == 0 else _join(place, within_s)


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
        raise AbsentError(told["absent"], lead=False)
    if "mistake" in told:
        raise UserError(told["mistake"], "environment", "start all ranks by one launcher, once")
    if "port" not in told:
        gone = f"rank {place.rank}: rank 0 at {place.master_addr} went away before all ranks had come"
        raise AbsentError(gone, lead=True)
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
    return AbsentError(f"rank {place.rank} on {host} {found} (last: {trouble})", lead=True)
