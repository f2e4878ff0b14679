"""From a launcher's environment to the five variables that torch.distributed and DeepSpeed need. Pure.

Supported: torchrun (the five variables themselves), submitit's local executor, a Slurm step (srun, and so submitit on
Slurm, array tasks, containers without scontrol), and no launcher: one process.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bigchem.base.errors import UserError

FIRST_PORT, PORTS = 20000, 12000
"""Ports below Linux's ephemeral range (32768 and up), which the kernel hands to no other program."""
CANDIDATES, STRIDE = 8, 1009
"""Ports that ranks try in turn, and the distance between them, which is coprime with PORTS."""
FIVE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Rendezvous:
    """This process's place among the ranks, and where they meet.

    master_port: the first to try. launcher: the source of these values. key: identifies this attempt of this job among
    all that may listen on the same machine. nodes: the node of each rank; empty if the launcher does not say. agent:
    torchrun itself serves master_port.
    """

    rank: int
    world_size: int
    local_rank: int
    master_addr: str
    master_port: int
    launcher: str
    key: str = ""
    nodes: tuple[str, ...] = ()
    agent: bool = False

    def variables(self, port: int | None = None) -> dict[str, str]:
        """The five variables. port: where the ranks met."""
        values = (self.rank, self.world_size, self.local_rank, self.master_addr, port or self.master_port)
        return dict(zip(FIVE, map(str, values), strict=True))

    def ports(self) -> tuple[int, ...]:
        """Ports of rank 0 in the order to try: one if it was chosen, else several, as another job on the node may have
        taken any of them."""
        if self.launcher == "torchrun":
            return (self.master_port,)
        return tuple(
            self.master_port if k == 0 else FIRST_PORT + (self.master_port + k * STRIDE - FIRST_PORT) % PORTS
            for k in range(CANDIDATES)
        )


def rendezvous(env: Mapping[str, str], pid: int) -> Rendezvous:
    """Reads an environment. pid: determines the port of a single process."""
    place = _read(env, pid)
    if not 0 <= place.rank < place.world_size:
        raise UserError(
            f"{place.launcher} says rank {place.rank} of {place.world_size} processes",
            "environment",
            "start one step of one component: a heterogeneous job's components number their processes separately",
        )
    return place


def _read(env: Mapping[str, str], pid: int) -> Rendezvous:
    if all(name in env for name in FIVE):
        rank, world_size, local_rank = (_number(env, name) for name in FIVE[:3])
        port, agent = _number(env, "MASTER_PORT"), env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        key = f"torchrun {env.get('TORCHELASTIC_RUN_ID', '')} {env.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        return Rendezvous(rank, world_size, local_rank, env["MASTER_ADDR"], port, "torchrun", key, agent=agent)
    if env.get("SUBMITIT_EXECUTOR") == "local":
        job = _number(env, "SUBMITIT_LOCAL_JOB_ID")
        rank, world_size, local_rank = (
            _number(env, f"SUBMITIT_LOCAL_{name}") for name in ("GLOBALID", "NTASKS", "LOCALID")
        )
        return Rendezvous(
            rank, world_size, local_rank, "127.0.0.1", port_of(job, 0), "submitit local", f"submitit local {job}"
        )
    if "SLURM_PROCID" in env and "SLURM_STEP_ID" in env:
        return _slurm(env)
    return Rendezvous(0, 1, 0, "127.0.0.1", port_of(pid, 0), "none", f"process {pid}")


def _slurm(env: Mapping[str, str]) -> Rendezvous:
    """A step's own list of nodes comes first: it may be part of the job's. MASTER_ADDR and MASTER_PORT are used if
    given, for nodes whose names do not resolve."""
    nodes = expand_nodelist(env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST", "localhost"))
    world_size = _number(env, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS")
    job, restarts = _number(env, "SLURM_JOB_ID"), int(env.get("SLURM_RESTART_COUNT", "0"))
    return Rendezvous(
        _number(env, "SLURM_PROCID"),
        world_size,
        _number(env, "SLURM_LOCALID"),
        env.get("MASTER_ADDR") or nodes[0],
        _number(env, "MASTER_PORT") if env.get("MASTER_PORT") else port_of(job, restarts),
        "slurm",
        f"slurm {job}.{env['SLURM_STEP_ID']} {restarts}",
        _nodes_of_ranks(env, nodes, world_size),
    )


def _nodes_of_ranks(env: Mapping[str, str], nodes: list[str], world_size: int) -> tuple[str, ...]:
    """The node of each rank under Slurm's default distribution, node by node; empty for others. `2(x3),1`: three nodes
    of two tasks, then one of one."""
    if re.split("[:,]", env.get("SLURM_DISTRIBUTION", "block"))[0] != "block":
        return ()
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", env.get("SLURM_STEP_TASKS_PER_NODE", "")):
        counts += [int(count)] * int(times or 1)
    found = tuple(node for node, count in zip(nodes, counts, strict=False) for _ in range(count))
    return found if len(found) == world_size else ()


def port_of(job_id: int, restarts: int) -> int:
    """A port that differs between neighbouring jobs and between restarts of one job."""
    return FIRST_PORT + (job_id * 7 + restarts * 3) % PORTS


def threads_of(cores: frozenset[int], neighbours: list[frozenset[int]], granted: int | None) -> int:
    """Threads of a process that may run on `cores`: their number, divided by the processes of its node that share any
    of them. neighbours: cores of each process of the node, including itself. granted: Slurm's cores per task."""
    fair = len(cores) // max(1, sum(1 for neighbour in neighbours if neighbour & cores))
    return max(1, min(fair, granted or fair))


def expand_nodelist(text: str) -> list[str]:
    """Expands a Slurm nodelist: `gpu[01-03,07],login` -> gpu01 gpu02 gpu03 gpu07 login. Several brackets multiply."""
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
