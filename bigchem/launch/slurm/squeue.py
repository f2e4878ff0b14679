"""The state of jobs, by one call of squeue for all. It has a timeout: clients hang when slurmctld is down."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from bigchem.launch.slurm import client

TIMEOUT_S = 5.0
POLL_S = 5.0
"""Seconds between two calls while waiting for jobs: slurmctld serves all users."""
FIELDS = ("JobArrayID:40", "State:20", "Reason:80", "NodeList:500", "RestartCnt:10", "StartTime:25")
GONE = ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY", "REVOKED")
"""States of jobs that have ended; Slurm remembers them for a while (MinJobAge, five minutes by default).

PREEMPTED is not among them: such a job is being requeued, or will soon be FAILED or CANCELLED.
"""


@dataclass(frozen=True)
class Job:
    """A job as squeue shows it. state: PENDING, RUNNING, CANCELLED, ... reason: why it waits or ended, in Slurm's
    words. nodes: Slurm's list, as gpu[01-04]. restarts: how often Slurm has restarted it. starts: when it started or is
    expected to, in seconds since 1970."""

    state: str
    reason: str | None = None
    nodes: str | None = None
    restarts: int = 0
    starts: float | None = None

    @property
    def waits(self) -> bool:
        """Whether it has no nodes yet."""
        return self.state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")

    @property
    def gone(self) -> bool:
        """Whether it has ended for good."""
        return self.state in GONE


@dataclass(frozen=True)
class Queue:
    """What is known about jobs. trouble: why nothing is."""

    jobs: dict[str, Job] = field(default_factory=dict)
    trouble: str | None = None


def ask(jobs: Collection[str]) -> Queue:
    """The jobs of these ids (`12` or `12_3`) that Slurm remembers."""
    if not jobs:
        return Queue()
    wanted = ",".join(sorted(set(jobs)))
    command = ["squeue", "--noheader", "--array", "--states=all", f"--Format={'|,'.join(FIELDS)}|", "--jobs", wanted]
    answer = client.ask(*command, timeout_s=TIMEOUT_S)
    if answer.trouble and "Invalid job id" not in answer.trouble:  # printed if it remembers none of them
        return Queue(trouble=answer.trouble)
    return Queue(parsed(answer.out))


def parsed(text: str) -> dict[str, Job]:
    """Parses lines of FIELDS, each followed by a bar."""
    found = {}
    for line in text.splitlines():
        cells = [word.strip() for word in line.split("|")]
        if len(cells) <= len(FIELDS):
            continue
        job, state, reason, nodes, restarts, starts = cells[: len(FIELDS)]
        known = None if reason in ("None", "") else reason
        restarted = int(restarts) if restarts.isdigit() else 0
        found[job] = Job(state, known, nodes or None, restarted, _seconds(starts))
    return found


def _seconds(text: str) -> float | None:
    """Slurm's local time in seconds since 1970; None for N/A."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
