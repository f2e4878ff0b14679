"""Whether a run's checkpoints are written while it goes on training."""

import socket
from collections import defaultdict
from collections.abc import Callable

from bigchem.base.progress import amount
from bigchem.config import RunConfig
from bigchem.train.checkpoint import host_memory
from bigchem.train.collectives import gathered, say

SPARE = 0.1
"""Share of a node's available memory that copies of checkpoints leave to everything else."""


def saves_in_background(config: RunConfig, device: str, staging: Callable[[], int]) -> bool:
    """Decides `checkpoint.async_save`, and says so if it is on. Collective. staging: bytes of host memory that this
    rank's files take."""
    wanted = config.checkpoint.async_save
    if not (device == "cuda" if wanted == "auto" else wanted):
        return False
    nodes = gathered((socket.gethostname(), staging(), host_memory.available()))
    needed, room = defaultdict[str, int](int), dict[str, int]()
    for node, size, available in nodes:
        needed[node] += size
        if available is not None:
            room[node] = min(available, room.get(node, available))
    fullest = max(needed, key=lambda node: needed[node] / max(1, room.get(node, 1 << 60)))
    holds = f"{amount(needed[fullest])} of host memory on {fullest}"
    if fullest in room and needed[fullest] > (1 - SPARE) * room[fullest]:
        free = f"of which {amount(room[fullest])} are free"
        say(f"checkpoints are written while training pauses: to write them meanwhile takes {holds}, {free}")
        return False
    say(f"checkpoints are written while training goes on, from {holds}")
    return True
