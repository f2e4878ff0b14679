"""The process group: started once the ranks have met, and destroyed at the end."""

from __future__ import annotations

import json
import logging
import os
import warnings
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from bigchem.base import environment
from bigchem.base.environment import before_torch
from bigchem.launch.rendezvous import meeting
from bigchem.launch.rendezvous.environment import Rendezvous, threads_of
from bigchem.launch.rendezvous.extensions import leave_muon_uncompiled, leave_out_shared_memory_op
from bigchem.launch.rendezvous.listener import own_address
from bigchem.launch.rendezvous.members import CARD, AbsentRankError, RankCard, Roster, absent_ranks, card_of
from bigchem.launch.rendezvous.secret import given_key
from bigchem.train.health import peers

if TYPE_CHECKING:
    import torch
    from torch.distributed.distributed_c10d import Store

COLLECTIVE_TIMEOUT = timedelta(hours=1)
"""Without a watchdog: ranks wait while rank 0 exports a model, at 11B for longer than DeepSpeed's ten minutes."""
MEET_S = 60.0
"""Default time in which all ranks have to come."""


def start(
    place: Rendezvous, timeout: timedelta = COLLECTIVE_TIMEOUT, meet_s: float = MEET_S, key: str | None = None
) -> torch.device:
    """Starts the process group; returns this rank's device. timeout: of collective operations, in all groups. meet_s:
    time in which all ranks have to come; AbsentRankError names those that did not. key: the ranks' shared secret, from
    rendezvous_key; None: BIGCHEM_RENDEZVOUS_KEY."""
    before_torch(os.environ)
    # Before torch, whose import takes seconds.
    roster = None if place.agent else meeting.meet(place, meet_s, key or given_key())
    os.environ.update(place.variables(None if roster is None else roster.port))
    device = environment.take_device(place.local_rank)
    on_gpu = device.type == "cuda"
    if on_gpu:
        os.environ["LOCAL_RANK"] = str(device.index)  # DeepSpeed takes it for the device's index
    store, cards = _by_agent(place, meet_s) if roster is None else (_store(place, roster), roster.cards)
    _use_cores(place, cards)
    environment.refuse_shared(_gpus(place, store, cards, device))
    import deepspeed
    from torch import distributed as dist
    from torch.distributed import distributed_c10d as c10d

    # DeepSpeed creates its own groups without a timeout: they would get torch's, ten minutes on GPUs.
    c10d.default_pg_timeout = c10d.default_pg_nccl_timeout = timeout  # type: ignore[attr-defined]
    _quiet()
    leave_muon_uncompiled()
    if not on_gpu:
        leave_out_shared_memory_op()
    notices = dist.PrefixStore(f"peers {place.key}", store)  # type: ignore[attr-defined]
    serves = roster is not None and place.rank == 0
    peers.join(notices, place.rank, place.world_size, cards[place.rank].host, serves=serves)
    # As DeepSpeed would, but it takes no store; the device lets NCCL split groups instead of creating each one.
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=dist.PrefixStore(f"group {place.key}", store),  # type: ignore[attr-defined]
        rank=place.rank,
        world_size=place.world_size,
        timeout=timeout,
        device_id=device if on_gpu and place.world_size > 1 else None,
    )
    deepspeed.init_distributed(dist.get_backend(), timeout=timeout, verbose=False)
    return device


def finish() -> None:
    """Destroys the process group after success. On an error a rank exits without: with NCCL this would wait for peers
    that are in a collective operation."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
    peers.part()


def _store(place: Rendezvous, roster: Roster) -> Store:
    """torch's store on the meeting's port. Rank 0's listener is handed over, so nobody else can take the port."""
    import torch.distributed as dist

    within = timedelta(seconds=meeting.MARGIN_S + MEET_S)
    if roster.listener is None:
        return dist.TCPStore(place.master_addr, roster.port, None, False, within, wait_for_workers=False)  # type: ignore[attr-defined]
    address, descriptor = own_address(roster.listener), roster.listener.detach()
    return dist.TCPStore(  # type: ignore[attr-defined]
        address, roster.port, None, True, within, wait_for_workers=False, master_listen_fd=descriptor
    )


def _by_agent(place: Rendezvous, within_s: float) -> tuple[Store, list[RankCard]]:
    """torchrun's own store, and the cards of the ranks that came to it."""
    import torch.distributed as dist

    within = timedelta(seconds=within_s)
    store = dist.TCPStore(place.master_addr, place.master_port, None, False, within, wait_for_workers=False)  # type: ignore[attr-defined]
    keys = [f"roster {place.key} {rank}" for rank in range(place.world_size)]
    store.set(keys[place.rank], json.dumps(asdict(card_of(place))))
    try:
        store.wait(keys, within)
    except dist.DistStoreError:
        came = [rank for rank, key in enumerate(keys) if store.check([key])]
        if len(came) < place.world_size:
            raise AbsentRankError(absent_ranks(place, came, within_s), lead=place.rank == 0) from None
    return store, [CARD.validate_json(card) for card in store.multi_get(keys)]


def _gpus(place: Rendezvous, store: Store, cards: list[RankCard], device: torch.device) -> list[tuple[str, str]]:
    """(host, GPU's UUID) of every rank; an empty UUID: on the CPU."""
    import torch

    keys = [f"gpu {place.key} {rank}" for rank in range(place.world_size)]
    uuid = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
    store.set(keys[place.rank], uuid)
    store.wait(keys, timedelta(seconds=meeting.MARGIN_S + MEET_S))
    return [(card.host, found.decode()) for card, found in zip(cards, store.multi_get(keys), strict=True)]


def _use_cores(place: Rendezvous, cards: list[RankCard]) -> None:
    """Sets as many threads as this process has cores to itself, unless OMP_NUM_THREADS says otherwise. On a GPU too:
    DeepSpeed's optimizer for offloaded states computes on the CPU."""
    import torch

    mine = cards[place.rank]
    neighbours = [frozenset(card.cores) for card in cards if card.host == mine.host]
    granted, chosen = os.environ.get("SLURM_CPUS_PER_TASK"), os.environ.get("OMP_NUM_THREADS")
    fair = threads_of(frozenset(mine.cores), neighbours, int(granted) if granted else None)
    torch.set_num_threads(int(chosen) if chosen else fair)


def _quiet() -> None:
    deepspeed_logger = logging.getLogger("DeepSpeed")
    deepspeed_logger.setLevel(logging.WARNING)
    # Logged for every optimizer that is not DeepSpeed's own; ours are tested at every stage.
    deepspeed_logger.addFilter(lambda record: "untested optimizer" not in record.getMessage())
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")  # from DeepSpeed's calls
