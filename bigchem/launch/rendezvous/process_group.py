"""The process group, from the ranks' meeting to its end."""

from __future__ import annotations

import json
import logging
import os
import warnings
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from bigchem.base.environment import own_programs_first
from bigchem.launch.rendezvous import meeting
from bigchem.launch.rendezvous.environment import Rendezvous, device_index, threads_of
from bigchem.launch.rendezvous.extensions import leave_muon_uncompiled, leave_out_shared_memory_op
from bigchem.launch.rendezvous.listener import own_address
from bigchem.launch.rendezvous.members import CARD, AbsentRankError, RankCard, Roster, absent_ranks, card_of
from bigchem.launch.rendezvous.secret import given_key
from bigchem.train.health import peers

if TYPE_CHECKING:
    import torch
    from torch.distributed.distributed_c10d import Store

COLLECTIVE_TIMEOUT = timedelta(hours=1)
"""Where no watchdog is: the others wait while rank 0 exports a model, at 11B longer than DeepSpeed's ten minutes."""
MEET_S = 60.0
"""In which all ranks have to come, where no configuration says so."""


def start(
    place: Rendezvous, timeout: timedelta = COLLECTIVE_TIMEOUT, meet_s: float = MEET_S, key: str | None = None
) -> torch.device:
    """Brings the process group up; the device of this rank. timeout: of collective operations, in all groups. meet_s:
    in which all ranks have to come; AbsentRankError names those that did not. key: the secret that the ranks share, as
    rendezvous_key gives it; None: what BIGCHEM_RENDEZVOUS_KEY says."""
    own_programs_first()
    # Before torch, whose import takes seconds.
    roll = None if place.agent else meeting.meet(place, meet_s, key or given_key())
    os.environ.update(place.variables(None if roll is None else roll.port))
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        index = device_index(place.local_rank, torch.cuda.device_count())
        os.environ["LOCAL_RANK"] = str(index)  # DeepSpeed takes it for the device's
        torch.cuda.set_device(index)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    store, cards = _by_agent(place, meet_s) if roll is None else (_store(place, roll), roll.cards)
    _use_cores(place, cards)
    import deepspeed
    from torch import distributed as dist
    from torch.distributed import distributed_c10d as c10d

    # DeepSpeed makes its own groups without a timeout: they would have torch's, ten minutes on GPUs.
    c10d.default_pg_timeout = c10d.default_pg_nccl_timeout = timeout  # type: ignore[attr-defined]
    _quiet()
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    leave_muon_uncompiled()
    if not on_gpu:
        leave_out_shared_memory_op()
    words = dist.PrefixStore(f"peers {place.key}", store)  # type: ignore[attr-defined]
    peers.join(words, place.rank, place.world_size, cards[place.rank].host, serves=roll is not None and place.rank == 0)
    # As DeepSpeed would, which takes no store; the device lets NCCL split groups rather than make each anew.
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
    """Takes the process group down, where all went well. On an error a rank leaves without: with NCCL this waits for
    peers that stand in a collective operation."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
    peers.part()


def _store(place: Rendezvous, roll: Roster) -> Store:
    """torch's store, at the place of the meeting: rank 0's listener is handed over, so that nobody can come between."""
    import torch.distributed as dist

    within = timedelta(seconds=meeting.MARGIN_S + MEET_S)
    if roll.listener is None:
        return dist.TCPStore(place.master_addr, roll.port, None, False, within, wait_for_workers=False)  # type: ignore[attr-defined]
    address, descriptor = own_address(roll.listener), roll.listener.detach()
    return dist.TCPStore(  # type: ignore[attr-defined]
        address, roll.port, None, True, within, wait_for_workers=False, master_listen_fd=descriptor
    )


def _by_agent(place: Rendezvous, within_s: float) -> tuple[Store, list[RankCard]]:
    """torchrun's own store, and the ranks that have come to it."""
    import torch.distributed as dist

    within = timedelta(seconds=within_s)
    store = dist.TCPStore(place.master_addr, place.master_port, None, False, within, wait_for_workers=False)  # type: ignore[attr-defined]
    keys = [f"roll {place.key} {rank}" for rank in range(place.world_size)]
    store.set(keys[place.rank], json.dumps(asdict(card_of(place))))
    try:
        store.wait(keys, within)
    except dist.DistStoreError:
        came = [rank for rank, key in enumerate(keys) if store.check([key])]
        if len(came) < place.world_size:
            raise AbsentRankError(absent_ranks(place, came, within_s), lead=place.rank == 0) from None
    return store, [CARD.validate_json(card) for card in store.multi_get(keys)]


def _use_cores(place: Rendezvous, cards: list[RankCard]) -> None:
    """As many threads as this process has cores to itself; OMP_NUM_THREADS goes before. On a GPU too: DeepSpeed's
    optimizer for offloaded states computes on the CPU."""
    import torch

    mine = cards[place.rank]
    neighbours = [frozenset(card.cores) for card in cards if card.host == mine.host]
    granted, chosen = os.environ.get("SLURM_CPUS_PER_TASK"), os.environ.get("OMP_NUM_THREADS")
    fair = threads_of(frozenset(mine.cores), neighbours, int(granted) if granted else None)
    torch.set_num_threads(int(chosen) if chosen else fair)


def _quiet() -> None:
    deepspeed_logger = logging.getLogger("DeepSpeed")
    deepspeed_logger.setLevel(logging.WARNING)
    # Said of every optimizer that is not DeepSpeed's own; ours are tested at every stage.
    deepspeed_logger.addFilter(lambda record: "untested optimizer" not in record.getMessage())
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")  # of DeepSpeed's own calls
