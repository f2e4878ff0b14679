"""Elastic restarts: a job that waits too long for as many nodes as it had goes on with fewer, and nobody has to come.

Slurm forgets a job's range of nodes when it starts it, and after a node failure waits for as many as it then had. The
range can be given back to a job that waits, by one `scontrol update`. Nothing of the run's own lives at that time: its
batch script ended with the node. So a job of one core looks every few minutes, and goes back into the queue.
"""

from __future__ import annotations

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
from bigchem.run.log_files import Rows
from bigchem.run.ownership import JobId
from bigchem.run.state import read_state

FILE = "elastic.json"
CALL_S, TRIES, PAUSE_S = 30.0, 5, 10.0
"""A controller that is being restarted does not answer for a while."""
SOON_S = 10.0
"""No look comes sooner after another."""
SAME_QUEUE = ("reservation", "wckey")
"""Options of a profile's [sbatch] that the watcher needs to start at all, beside partition, account and qos."""
NOT_NODES = ("Held", "held", "Dependency", "BeginTime")
"""Reasons to wait, in parts of Slurm's words, for which fewer nodes are no help."""


@dataclass(frozen=True)
class Watcher:
    """elastic.json: the job that watches, and the job that it watches."""

    watcher: JobId
    job: JobId
    cluster: str | None = None


@dataclass(frozen=True)
class Decision:
    """What follows from a look at the watched job. widen: give it its range of nodes. again_s: until the next look;
    None: there is nothing to watch any more."""

    widen: bool
    again_s: float | None


def decide(job: Mapping[str, str] | None, fewest_tasks: int, after_s: float, now: float) -> Decision:
    """Decides on the facts that Slurm tells of a job. Pure.

    job: None if Slurm does not know it. fewest_tasks: of the smallest size that it may have. after_s: for which it is
    to wait for its nodes. now: Unix time.
    """
    if job is None or job.get("JobState", "") in squeue.GONE:
        return Decision(widen=False, again_s=None)
    if job.get("JobState") != "PENDING" or int(job.get("NumTasks", "0")) <= fewest_tasks:
        return Decision(widen=False, again_s=after_s)
    left = _moment(job.get("SubmitTime", "")) + after_s - now  # Slurm sets it anew when it requeues a job
    if left > 0:
        return Decision(widen=False, again_s=max(SOON_S, left))
    if any(word in job.get("Reason", "") for word in NOT_NODES):
        return Decision(widen=False, again_s=min(after_s, 60.0))
    return Decision(widen=True, again_s=after_s)


def _moment(text: str) -> float:
    """Unix time of Slurm's `2026-11-29T17:03:32`; 0 if it says none."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0.0


def widened(profile: ClusterProfile, job: Mapping[str, str]) -> list[str]:
    """The changes to a job that waits which give it the profile's range of nodes again, as sbatch had set them. Pure.

    All three in one call: with the tasks or the cores of the last start, fewer nodes would have to hold them all.
    """
    tasks = profile.nodes * profile.tasks_per_node
    each = job.get("CPUs/Task", "")
    cpus = int(each) if each.isdigit() else profile.cpus_per_task or 1
    return [f"NumNodes={profile.nodes}-{profile.most_nodes}", f"NumTasks={tasks}", f"NumCPUs={tasks * cpus}"]


def watch(run_dir: Path, profile: ClusterProfile, job: str, python: str) -> str | None:
    """Submits the watcher of a job that was just submitted, if the profile wants one; why there is none. The caller is
    inside `owner.alone`. python: the words, in shell, that start it on a node."""
    stop(run_dir)
    if profile.elastic_after_min is None:
        return None
    script, log = run_dir / "submitit" / "elastic.sh", run_dir / "submitit" / "elastic.log"
    atomic.write_atomically(
        script, f"#!/bin/bash\nexec {python} -m bigchem.launch.elastic_restart {shlex.quote(str(run_dir))}\n"
    )
    answer = client.ask("sbatch", *options(profile, run_dir.name, log), str(script), timeout_s=CALL_S)
    if answer.trouble is not None:
        return f"nothing will have it go on with fewer nodes: sbatch: {answer.trouble}"
    made = Watcher(answer.out.strip().partition(";")[0], job, client.cluster_name())
    atomic.write_atomically(run_dir / FILE, json.dumps(asdict(made), indent=1))
    return None


def options(profile: ClusterProfile, name: str, log: Path) -> list[str]:
    """What sbatch is told of a watcher: one core, in the job's own queue or elastic_partition. Pure."""
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
    """The nodes with which a run's job would go on if it had to; None if it is not watched."""
    return None if read(run_dir) is None else toml.load(ClusterProfile, run_dir / "cluster.toml").nodes


def stop(run_dir: Path) -> None:
    """The run is over, or submitted anew: its watcher goes. One that cannot be reached goes when it looks next."""
    has = read(run_dir)
    if has is None:
        return
    with suppress(OSError):
        (run_dir / FILE).unlink()
    if has.cluster in (None, client.cluster_name()):
        client.ask("scancel", has.watcher)


def is_watched(run_dir: Path, me: Watcher | None) -> bool:
    """Whether the run still is that of the watched job, and is to go on."""
    has = ownership.read(run_dir)
    if me is None or has is None or has.job != me.job or has.released is not None:
        return False
    return owner.cancelled_by(run_dir, has) is None


def check_once(run_dir: Path, profile: ClusterProfile, me: Watcher) -> float | None:
    """Looks at the watched job and, if it has waited too long, lets it go on with fewer nodes; seconds until the next
    look, or None. UserError if Slurm does not answer."""
    with owner.start_lock(run_dir, "looks after"):
        if not is_watched(run_dir, me):
            return None
        job = _shown(me.job)
        found = decide(job, profile.world_size, 60.0 * (profile.elastic_after_min or 1), time.time())
        if found.widen and job is not None:
            _widen(run_dir, profile, me, job)
    return found.again_s


def _shown(job: str) -> dict[str, str] | None:
    told = _ask("env", "SLURM_TIME_FORMAT=standard", "scontrol", "--oneliner", "show", "job", job)
    return None if told is None else nodes.facts(told)


def _widen(run_dir: Path, profile: ClusterProfile, me: Watcher, job: Mapping[str, str]) -> None:
    _ask("scontrol", "update", f"JobId={me.job}", *widened(profile, job))
    had, waited = job.get("NumNodes", "its"), f"{profile.elastic_after_min} min ({job.get('Reason', 'no reason told')})"
    action = f"it goes on with {profile.nodes} to {profile.most_nodes}, as many as are free"
    report(run_dir, "nodes", action, f"waited for {had} nodes for {waited}")


def report(run_dir: Path, kind: str, action: str, detail: str) -> None:
    """Tells an event, as train.events does, which imports torch: this is called in small jobs and batch scripts."""
    step = int(read_state(run_dir).get("step", 0))
    print(f"{kind} after step {step}: {detail}: {action}", flush=True)
    row = {"time": time.time(), "step": step, "kind": kind, "action": action, "detail": detail, "keys": []}
    Rows(run_dir / "events.jsonl").add(row)


def _ask(*command: str) -> str | None:
    """What a program of Slurm's says; None if it knows no such job. UserError if it does not answer in a while."""
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


def _back_into_the_queue(job: str, again_s: float) -> None:
    """This job is to look again. Slurm ends it soon after the request, by SIGTERM first."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _ask("scontrol", "requeue", job)
    _ask("scontrol", "update", f"JobId={job}", f"StartTime=now+{again_s:.0f}")


def main(run_dir: Path, env: Mapping[str, str]) -> int:
    """One look of a watcher, whose job's environment is env."""
    me, job = read(run_dir), env["SLURM_JOB_ID"]
    if me is None or me.watcher != job:
        return 0  # another one watches, or none is to
    profile = toml.load(ClusterProfile, run_dir / "cluster.toml")
    try:
        again_s = check_once(run_dir, profile, me)
    except UserError as error:
        print(f"{time.strftime('%d %b %H:%M:%S')}: {error}", flush=True)
        again_s = 60.0
    if again_s is not None:
        _back_into_the_queue(job, again_s)
    else:
        (run_dir / FILE).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), os.environ))
