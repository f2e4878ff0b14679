"""What ranks report about themselves when they meet, and which did not come."""

import os
import platform
import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from bigchem.launch.rendezvous.environment import Rendezvous

Rank = Annotated[int, Field(ge=0, lt=1 << 20)]
Core = Annotated[int, Field(ge=0, lt=1 << 16)]


class AbsentRankError(ConnectionError):
    """Not all ranks came, which may be transient: a slow node, or a lost one. lead: this rank tells the launcher."""

    def __init__(self, message: str, *, lead: bool) -> None:
        super().__init__(message)
        self.lead = lead


@checked(frozen=True, config={"extra": "forbid", "strict": True})
class RankCard:
    """What a rank reports about itself. cores: those it may run on. ValueError outside these types and bounds."""

    rank: Rank
    world_size: Rank
    host: Annotated[str, Field(max_length=255)]
    cores: Annotated[list[Core], Field(max_length=1 << 13)]


CARD = TypeAdapter(RankCard)
CARD_BYTES = 1 << 16
"""Upper bound of a card: 8,192 cores of six characters, and a name."""


@dataclass(frozen=True)
class Roster:
    """All ranks. port: where they met. listener: rank 0's, still open."""

    port: int
    cards: list[RankCard]
    listener: socket.socket | None = None


def card_of(place: Rendezvous) -> RankCard:
    """This process's card."""
    host = os.environ.get("SLURMD_NODENAME") or platform.node()
    return RankCard(place.rank, place.world_size, host, sorted(os.sched_getaffinity(0)))


def absent_ranks(place: Rendezvous, came: Collection[int], within_s: float) -> str:
    """One line: which ranks did not come, and their nodes. came: the ranks that did."""
    missing = [rank for rank in range(place.world_size) if rank not in came]
    nodes = sorted({place.nodes[rank] for rank in missing}) if place.nodes else []
    where = f" (of {'node' if len(nodes) == 1 else 'nodes'} {', '.join(nodes)})" if nodes else ""
    word = "rank" if len(missing) == 1 else "ranks"
    return f"{word} {ranges(missing)} of {place.world_size}{where} did not come within {within_s:.0f} s"


def ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers, abbreviated: `3, 5-7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)
