"""The configuration files of a testbed's Slurm. Pure except `free_port`."""

import hashlib
import random
import socket
from collections.abc import Sequence
from pathlib import Path

CPUS, MEMORY_MB, GPUS = 4, 4000, 2
"""What each node claims to have (slurmd accepts it with config_overrides), however many nodes share the machine."""
PORTS = range(17000, 20000)
"""Below bigchem's rendezvous ports (20000 and up) and Linux's ephemeral ones (32768 and up)."""
FIRST_JOBS = 6_000_000


def free_port(nodes: int) -> int:
    """The first of `nodes` + 1 free ports in a row: the controller's, then one per node."""
    for _ in range(100):
        first = random.choice(PORTS)
        if all(_is_free(port) for port in range(first, first + nodes + 1)):
            return first
    raise OSError(f"no {nodes + 1} free ports in a row between {PORTS.start} and {PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def first_job() -> int:
    """The first job id. A fresh Slurm starts at 1: submitit would find the results of an older testbed's jobs, and two
    testbeds side by side would choose the same rendezvous ports."""
    return 1000 + random.randrange(FIRST_JOBS // 1000) * 1000


def cluster_name(folder: Path) -> str:
    """A different name for each testbed: a run identifies its cluster by name."""
    return f"testbed-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def munge_socket(folder: Path) -> Path:
    """Where the testbed's own munged listens."""
    return folder / "munge" / "socket"


def hosts(nodes: Sequence[str]) -> str:
    """/etc/hosts as each node sees it: all of them are this machine."""
    return f"127.0.0.1 localhost {' '.join(nodes)}\n::1 localhost\n"


def gres_conf(folder: Path, nodes: Sequence[str]) -> str:
    """The GPUs: plain files, as Slurm only requires that they exist when no cgroup guards them."""
    return f"NodeName={','.join(nodes)} AutoDetect=off Name=gpu File={folder}/dev/nvidia[0-{GPUS - 1}]\n"


def slurm_conf(folder: Path, nodes: Sequence[str], port: int, user: str) -> str:
    """slurm.conf. user: runs everything.

    Other users cannot connect: munged has its own key, and its socket is in a folder of mode 0700. Neither can other
    hosts: with NoInAddrAny every program listens on its hostname's address, which is 127.0.0.1 (node.py).
    cred_expire=5: with Slurm's 120 s, a requeued job would wait two minutes before it restarts. Partitions: `high`
    preempts the default, `test`; preemption sends the job's own signal, then waits GraceTime.
    """
    lines = [
        f"ClusterName={cluster_name(folder)}",
        "SlurmctldHost=localhost",
        f"SlurmctldPort={port}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={munge_socket(folder)},cred_expire=5",
        "CredType=cred/munge",
        "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/run/slurmctld.slurm.pid",
        f"SlurmdPidFile={folder}/run/%n.slurm.pid",
        f"SlurmctldLogFile={folder}/log/slurmctld.log",
        f"SlurmdLogFile={folder}/log/%n.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "MpiDefault=none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU",
        "GresTypes=gpu",
        "SlurmdParameters=config_overrides",
        "SlurmctldParameters=preempt_send_user_signal",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "EnforcePartLimits=ALL",
        "PropagateResourceLimits=NONE",
        "JobRequeue=1",
        f"FirstJobId={first_job()}",
        "KillWait=3",
        "ReturnToService=2",
        "SlurmdTimeout=5",
        "BatchStartTimeout=10",
        "MinJobAge=3600",
    ]
    for number, node in enumerate(nodes, start=1):
        lines.append(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port + number} CPUs={CPUS}"
            f" RealMemory={MEMORY_MB} Gres=gpu:{GPUS} State=UNKNOWN"
        )
    everywhere = f"Nodes={','.join(nodes)} MaxTime=INFINITE State=UP"
    lines.append(f"PartitionName=test {everywhere} Default=YES PriorityTier=1 GraceTime=30")
    lines.append(f"PartitionName=high {everywhere} PriorityTier=10 PreemptMode=OFF")
    return "\n".join(lines) + "\n"
