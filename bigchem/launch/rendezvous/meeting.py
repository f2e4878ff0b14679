"""All ranks meet at rank 0 before anything else; missing ranks are named within a minute.

Rank 0 listens on the first free port of its list; the others try the ports in turn until one answers with the key of
this attempt of this job. So a port that is taken, even by another job's rank 0, costs nothing. torch's own store would
wait indefinitely for a silent listener, and its timeout names nobody. The listener is then handed to torch.

Both sides prove that they know the run's secret without sending it:

    rank 0   challenge
    rank     nonce  signature of challenge, nonce and card  card
    rank 0   signature of challenge and nonce
    rank 0   signature of challenge, nonce and roster  roster           once all ranks are there
"""

import json
import platform
import secrets
import socket
import time
from dataclasses import asdict
from typing import Annotated

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from bigchem.base.errors import UserError
from bigchem.launch.rendezvous.environment import Rendezvous
from bigchem.launch.rendezvous.members import CARD_BYTES, AbsentRankError, RankCard, Roster, card_of
from bigchem.launch.rendezvous.rank0 import CHALLENGE_BYTES, GREETING_S, MeetingServer
from bigchem.launch.rendezvous.secret import SIGNATURE_BYTES, VARIABLE, Signer, new_key

MARGIN_S = 30.0
"""How much longer than its own timeout a greeted rank waits: rank 0 may have started later."""


@dataclass(frozen=True, config={"extra": "forbid", "strict": True})
class _Result:
    """Rank 0's final message: the roster, or why there is none."""

    absent: str | None = None
    mistake: str | None = None
    port: Annotated[int, Field(gt=0, lt=1 << 16)] | None = None
    cards: list[RankCard] | None = None


RESULT = TypeAdapter(_Result)


def meet(place: Rendezvous, within_s: float, key: str | None = None) -> Roster:
    """Waits until all ranks have come. key: their shared secret.

    AbsentRankError, on every rank that came, if one has not within `within_s`; UserError if waiting longer is no use.
    """
    if key is None and place.world_size > 1:
        raise UserError(
            "the ranks share no secret to authenticate each other",
            VARIABLE,
            f'export {VARIABLE}="$(openssl rand -hex 32)" before the launcher starts them',
        )
    return (
        MeetingServer(place, key or new_key()).serve(within_s) if place.rank == 0 else _join(place, within_s, str(key))
    )


def _join(place: Rendezvous, within_s: float, key: str) -> Roster:
    """The side of every rank but 0."""
    deadline = time.monotonic() + within_s
    seal, nonce = Signer(key, place.key), secrets.token_hex(16).encode()
    pause, trouble = 0.05, ""
    while True:
        for port in place.ports():
            try:
                with socket.create_connection((place.master_addr, port), timeout=GREETING_S) as connection:
                    challenge = _greet(place, seal, nonce, connection)
                    if challenge is None:
                        trouble = f"port {port} is another program's, or does not have this run's secret"
                        continue
                    until = max(deadline, time.monotonic()) + MARGIN_S
                    line = _line(connection, place.world_size * CARD_BYTES, until)
                    return _roster(place, _verified(line, seal, challenge, nonce))
            except socket.gaierror as error:
                trouble = f"{place.master_addr} does not resolve: {error.strerror}"
                break
            except AbsentRankError:
                raise
            except OSError as error:
                trouble = f"port {port}: {error.strerror or error}"
        if time.monotonic() >= deadline:
            raise _unreached(place, within_s, trouble)
        time.sleep(pause)
        pause = min(1.0, 1.5 * pause)


def _greet(place: Rendezvous, seal: Signer, nonce: bytes, connection: socket.socket) -> bytes | None:
    """Proves to a listener that this is a rank of the run; returns its challenge if it proves to be rank 0, or None."""
    until = time.monotonic() + GREETING_S
    challenge = _line(connection, CHALLENGE_BYTES, until)
    card = json.dumps(asdict(card_of(place))).encode()
    connection.sendall(b" ".join([nonce, seal.signature(b"rank", challenge, nonce, card), card]) + b"\n")
    proof = _line(connection, SIGNATURE_BYTES, until)
    return challenge if seal.holds(proof, b"rank 0", challenge, nonce) else None


def _line(connection: socket.socket, longest: int, until: float) -> bytes:
    """Reads a line, without its end, of at most `longest` bytes. TimeoutError at `until` of the monotonic clock,
    however slowly the bytes arrive."""
    received = bytearray()
    while len(received) < longest and not received.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer")
        connection.settimeout(left)
        more = connection.recv(min(longest - len(received), 1 << 16))
        if not more:
            break
        received += more
    return bytes(received.removesuffix(b"\n"))


def _verified(line: bytes, seal: Signer, challenge: bytes, nonce: bytes) -> _Result:
    """Rank 0's signed message; an empty one if the connection ended before it, or if the signature is wrong."""
    signature, _, body = line.partition(b" ")
    return RESULT.validate_json(body) if seal.holds(signature, b"roster", challenge, nonce, body) else _Result()


def _roster(place: Rendezvous, result: _Result) -> Roster:
    if result.absent is not None:
        raise AbsentRankError(result.absent, lead=False)
    if result.mistake is not None:
        raise UserError(result.mistake, "environment", "start all ranks with one launcher, once")
    if result.port is None or result.cards is None:
        gone = f"rank {place.rank}: rank 0 at {place.master_addr} disconnected before all ranks had come"
        raise AbsentRankError(gone, lead=True)
    return Roster(result.port, result.cards)


def _unreached(place: Rendezvous, within_s: float, trouble: str) -> Exception:
    host = platform.node()
    if "does not resolve" in trouble:
        return UserError(
            f"rank {place.rank} on {host}: {trouble}",
            "MASTER_ADDR",
            "the node's name must resolve inside the container too (/etc/hosts, DNS); or add to the cluster profile: "
            "setup = ['export MASTER_ADDR=$(hostname -I | cut -d\" \" -f1)']",
        )
    found = f"did not find rank 0 at {place.master_addr} within {within_s:.0f} s"
    return AbsentRankError(f"rank {place.rank} on {host} {found} (last: {trouble})", lead=True)
