"""Elastic restarts: a job that waits too long for its previous number of nodes continues with fewer, unattended.

Slurm forgets a job's range of nodes when it starts it, and after a node failure waits for as many as it then had. One
`scontrol update` can give a pending job its range back. None of the run's processes is alive at that time: its batch
script ended with the node. So a one-core job, the watcher, checks every few minutes and requeues itself.
"""

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from bigchem.base import atomic, json_file, toml
from bigchem.base.errors import UserError
from bigchem.base.json_file import RecordError
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.runs import owner
from bigchem.launch.slurm import client, nodes, squeue
from bigchem.run import ownership
from bigchem.run.log_files import record_event
from bigchem.run.ownership import JobId
from bigchem.run.state import read_state

FILE = "elastic.json"
CALL_S, TRIES, PAUSE_S = 30.0, 5, 10.0
"""A controller that is restarting does not answer for a while."""
SOON_S = 10.0
"""Shortest time between two checks."""
SAME_QUEUE = ("reservation", "wckey")
"""Options of a profile's [sbatch] that the watcher needs to start at all, beside partition, account and qos."""
NOT_NODES = ("Held", "held", "Dependency", "BeginTime")
"""Parts of Slurm's reasons to wait that fewer nodes would not help."""


@dataclass(frozen=True)
class Watcher:
    """elastic.json: the watching job, and the job it watches."""

    watcher: JobId
    job: JobId
    cluster: str | None = None


@dataclass(frozen=True)
class Decision:
    """What to do after a check. widen: give the job its range of nodes. again_s: seconds until the next check; None:
    nothing left to watch."""

    widen: bool
    again_s: float | None


def decide(job: Mapping[str, str] | None, fewest_tasks: int, after_s: float, now: float) -> Decision:
    """Decides from Slurm's facts about a job. Pure.

    job: None if Slurm does not know it. fewest_tasks: of its smallest size. after_s: how long it waits for its nodes.
    now: Unix time.
    """
    if job is None or job.get("JobState", "") in squeue.GONE:
        return Decision(widen=False, again_s=None)
    if job.get("JobState") != "PENDING" or int(job.get("NumTasks", "0")) <= fewest_tasks:
        return Decision(widen=False, again_s=after_s)
    left = _moment(job.get("SubmitTime", "")) + after_s - now  # Slurm resets it when it requeues a job
    if left > 0:
        return Decision(widen=False, again_s=max(SOON_S, left))
    if any(word in job.get("Reason", "") for word in NOT_NODES):
        return Decision(widen=False, again_s=min(after_s, 60.0))
    return Decision(widen=True, again_s=after_s)


def _moment(text: str) -> float:
    """Unix time of Slurm's `2026-11-29T17:03:32`; 0 for anything else."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0.0


def widened(profile: ClusterProfile, job: Mapping[str, str]) -> list[str]:
    """The changes that give a pending job the profile's range of nodes again, as sbatch had set it. Pure.

    All three go in one call: otherwise fewer nodes would have to hold the tasks or cores of the last start.
    """
    tasks = profile.nodes * profile.tasks_per_node
    each = job.get("CPUs/Task", "")
    cpus = int(each) if each.isdigit() else profile.cpus_per_task or 1
    return [f"NumNodes={profile.nodes}-{profile.max_nodes}", f"NumTasks={tasks}", f"NumCPUs={tasks * cpus}"]


def watch(run_dir: Path, profile: ClusterProfile, job: str, python: str) -> str | None:
    """Submits the watcher of a job that was just submitted, if the profile asks for one; returns why that failed. The
    caller holds `owner.start_lock`. python: the shell words that start Python on a node."""
    stop(run_dir)
    if profile.elastic_after_min is None:
        return None
    script, log = run_dir / "submitit" / "elastic.sh", run_dir / "submitit" / "elastic.log"
    atomic.write_atomically(
        script, f"#!/bin/bash\nexec {python} -m bigchem.launch.elastic_restart {shlex.quote(str(run_dir))}\n"
    )
    answer = client.ask("sbatch", *options(profile, run_dir.name, log), str(script), timeout_s=CALL_S)
    if answer.trouble is not None:
        return f"it will not continue with fewer nodes: sbatch: {answer.trouble}"
    made = Watcher(answer.out.strip().partition(";")[0], job, client.cluster_name())
    atomic.write_atomically(run_dir / FILE, json.dumps(asdict(made), indent=1))
    return None


def options(profile: ClusterProfile, name: str, log: Path) -> list[str]:
    """sbatch's options for a watcher: one core, in the job's own queue or elastic_partition. Pure."""
    given = {
        "job-name": f"{name}-elastic",
        "partition": profile.elastic_partition or profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        **{option: profile.sbatch.get(option) for option in SAME_QUEUE},
        "begin": f"now+{60 * (profile.elastic_after_min or 1)}",
        "output": str(log),
    }
    fixed = ["--parsable", "--nodes=1", "--ntasks=1", "--mem=2G", "--time=10", "--requeue", "--open-mode=append"]
    return [*fixed, *(f"--{option}={value}" for option, value in given.items() if value is not None)]


def read(run_dir: Path) -> Watcher | None:
    """The run's watcher; None if it has none."""
    try:
        return json_file.as_kind(Watcher, json_file.load(run_dir / FILE), "")
    except (OSError, RecordError):
        return None


def fewest_nodes(run_dir: Path) -> int | None:
    """The fewest nodes with which a run's job may continue; None if it is not watched."""
    return None if read(run_dir) is None else toml.load(ClusterProfile, run_dir / "cluster.toml").nodes


def stop(run_dir: Path, job: str | None = None) -> None:
    """Cancels the watcher of a run that is over or resubmitted. One that cannot be reached ends at its next check.

    job: leave the watcher of any other job, to which the run may belong by now.
    """
    watcher = read(run_dir)
    if watcher is None or job not in (None, watcher.job):
        return
    with suppress(OSError):
        (run_dir / FILE).unlink()
    if watcher.cluster in (None, client.cluster_name()):
        client.ask("scancel", watcher.watcher)


def is_watched(run_dir: Path, me: Watcher | None) -> bool:
    """Whether the run still belongs to the watched job and should continue."""
    current = ownership.read(run_dir)
    if me is None or current is None or current.job != me.job or current.released is not None:
        return False
    return owner.cancelled_by(run_dir, current) is None


def check_once(run_dir: Path, profile: ClusterProfile, me: Watcher) -> float | None:
    """Checks the watched job and, if it has waited too long, lets it continue with fewer nodes. Returns the seconds
    until the next check; None, without its record, if nothing is left to watch. UserError if Slurm does not answer."""
    with owner.start_lock(run_dir, "watches"):
        again_s = _check(run_dir, profile, me) if is_watched(run_dir, me) else None
        if again_s is None and read(run_dir) == me:  # not that of a job submitted meanwhile
            (run_dir / FILE).unlink(missing_ok=True)
    return again_s


def _check(run_dir: Path, profile: ClusterProfile, me: Watcher) -> float | None:
    output = _ask("env", "SLURM_TIME_FORMAT=standard", "scontrol", "--oneliner", "show", "job", me.job)
    job = None if output is None else nodes.facts(output)
    found = decide(job, profile.world_size, 60.0 * (profile.elastic_after_min or 1), time.time())
    if found.widen and job is not None:
        _widen(run_dir, profile, me, job)
    return found.again_s


def _widen(run_dir: Path, profile: ClusterProfile, me: Watcher, job: Mapping[str, str]) -> None:
    _ask("scontrol", "update", f"JobId={me.job}", *widened(profile, job))
    had, waited = job.get("NumNodes", "its"), f"{profile.elastic_after_min} min ({job.get('Reason', 'no reason')})"
    action = f"it continues with {profile.nodes} to {profile.max_nodes}, as many as are free"
    report(run_dir, "nodes", action, f"waited for {had} nodes for {waited}")


def report(run_dir: Path, kind: str, action: str, detail: str) -> None:
    """Reports an event from a small job or a batch script."""
    step = int(read_state(run_dir).get("step", 0))
    print(f"{kind} after step {step}: {detail}: {action}", flush=True)
    record_event(run_dir, step, kind, action, detail)


def _ask(*command: str) -> str | None:
    """The output of a Slurm program; None if it knows no such job. UserError if it still fails after TRIES calls."""
    trouble = ""
    for number in range(TRIES):
        time.sleep(PAUSE_S if number else 0)
        answer = client.ask(*command, timeout_s=CALL_S)
        if answer.trouble is None:
            return answer.out
        if "Invalid job id" in answer.trouble:
            return None
        trouble = answer.trouble
    raise UserError(trouble, " ".join(command), "`sinfo` shows whether Slurm answers")


def _requeue_self(job: str, again_s: float) -> None:
    """Requeues this job for its next check. Slurm ends it soon after the request, by SIGTERM first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _ask("scontrol", "requeue", job)
    _ask("scontrol", "update", f"JobId={job}", f"StartTime=now+{again_s:.0f}")


def main(run_dir: Path, env: Mapping[str, str]) -> int:
    """One check by a watcher. env: its job's environment."""
    me, job = read(run_dir), env["SLURM_JOB_ID"]
    if me is None or me.watcher != job:
        return 0  # another watcher has taken over, or none is needed
    profile = toml.load(ClusterProfile, run_dir / "cluster.toml")
    try:
        again_s = check_once(run_dir, profile, me)
    except UserError as error:
        print(f"{time.strftime('%d %b %H:%M:%S')}: {error}", flush=True)
        again_s = 60.0
    if again_s is not None:
        _requeue_self(job, again_s)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), os.environ))
