"""From a launcher's environment to the five variables that torch.distributed and DeepSpeed need. Pure.

Understood: torchrun (the five variables themselves), submitit's local executor, a Slurm step (srun, and so submitit on
Slurm), and nothing at all: one process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bigchem.errors import UserError

FIRST_PORT, PORTS = 20000, 12000
"""Ports below Linux's ephemeral range (32768 and up), so that nothing else is handed one by chance."""
FIVE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Rendezvous:
    """Where this process stands among its peers, and where they meet. launcher: who said so."""

    rank: int
    world_size: int
    local_rank: int
    master_addr: str
    master_port: int
    launcher: str

    def variables(self) -> dict[str, str]:
        """The five variables."""
        values = (self.rank, self.world_size, self.local_rank, self.master_addr, self.master_port)
        return dict(zip(FIVE, map(str, values), strict=True))


def rendezvous(env: Mapping[str, str], pid: int) -> Rendezvous:
    """Reads an environment. pid: picks the port of a single process."""
    if all(name in env for name in FIVE):
        rank, world_size, local_rank = (_number(env, name) for name in FIVE[:3])
        return Rendezvous(rank, world_size, local_rank, env["MASTER_ADDR"], _number(env, "MASTER_PORT"), "torchrun")
    if env.get("SUBMITIT_EXECUTOR") == "local":
        job = _number(env, "SUBMITIT_LOCAL_JOB_ID")
        rank, world_size, local_rank = (
            _number(env, f"SUBMITIT_LOCAL_{name}") for name in ("GLOBALID", "NTASKS", "LOCALID")
        )
        return Rendezvous(rank, world_size, local_rank, "127.0.0.1", port_of(job, 0), "submitit local")
    if "SLURM_PROCID" in env and "SLURM_STEP_ID" in env:
        nodes = expand_nodelist(env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "localhost"))
        rank, local_rank = _number(env, "SLURM_PROCID"), _number(env, "SLURM_LOCALID")
        world_size = _number(env, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS")
        restarts = int(env.get("SLURM_RESTART_COUNT", "0"))
        return Rendezvous(
            rank, world_size, local_rank, nodes[0], port_of(_number(env, "SLURM_JOB_ID"), restarts), "slurm"
        )
    return Rendezvous(0, 1, 0, "127.0.0.1", port_of(pid, 0), "none")


def port_of(job_id: int, restarts: int) -> int:
    """A port that differs between neighbouring jobs and between restarts of one job."""
    return FIRST_PORT + (job_id * 7 + restarts * 3) % PORTS


def expand_nodelist(text: str) -> list[str]:
    """Slurm's nodelists: `gpu[01-03,07],login` -> gpu01 gpu02 gpu03 gpu07 login. Several brackets multiply."""
    nodes: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        names = [""]
        for literal, ranges in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", part):
            names = [name + tail for name in names for tail in ([literal] if literal else _expand_ranges(ranges, text))]
        nodes.extend(names)
    if not nodes:
        raise UserError(f"cannot read the nodelist '{text}'", "SLURM_JOB_NODELIST")
    return nodes


def _expand_ranges(ranges: str, text: str) -> list[str]:
    numbers: list[str] = []
    for item in ranges.split(","):
        first, _, last = item.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise UserError(f"cannot read the nodelist '{text}'", "SLURM_JOB_NODELIST")
        numbers += [str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1)]
    return numbers


def _number(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env[name])
    except (KeyError, ValueError):
        raise UserError(f"{name} = {env.get(name)!r} is not a number", "environment") from None
