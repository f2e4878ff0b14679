"""What a Slurm job's batch script runs after srun: it requeues the job, or reports why not.

The batch script does this because it outlives the ranks: one that is killed, or hangs in a collective operation, cannot
ask for anything. It does not run if Slurm itself ends the job: after scancel, which is meant to stop it, or after a
node failure or a preemption, after which Slurm requeues it.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.launch import elastic_restart
from bigchem.launch.cluster import pickles
from bigchem.launch.runs import history, owner
from bigchem.launch.slurm import client, job_output, nodes
from bigchem.launch.slurm.nodes import Exclusion
from bigchem.run import notify, ownership
from bigchem.run.lifecycle import ENDS, EXIT_REQUEUE, EXIT_STOPPED, End, State, Writer, end_of
from bigchem.run.log_files import try_write
from bigchem.run.ownership import Owner
from bigchem.run.state import end, move, read_state

CALL_S = 5.0
TRIES, TRY_S, PAUSE_S = 10, 30.0, 10.0
"""A controller that is restarting does not answer for a while."""
_REFUSED = re.compile(r"srun: (error|fatal): (?!.*\btasks? [\d,-]+:)|slurmstepd: error: execve|setup failed")
_PASSES = re.compile(
    r"timed out|unable to contact|connection|temporarily|node failure|zero bytes|completing or completed|are busy"
    r"|launch failed|\*\*\*",
    re.IGNORECASE,
)
"""Errors that may not recur at the next start."""


def settle(run_dir: Path, code: int, max_requeues: int, env: Mapping[str, str], errors: Path | None = None) -> bool:
    """Closes the attempt and, if the run should continue, requeues the job; returns whether it did.

    code: srun's exit code, the largest of its tasks'. env: the batch script's. errors: the file with srun's errors.
    """
    job, restart = owner.job_id(env), int(env.get("SLURM_RESTART_COUNT", "0"))
    current = ownership.read(run_dir)
    if current is None or not owner.is_jobs(current, env):
        return _without_claim(run_dir, current, code, restart, max_requeues, job)
    rows = history.read(run_dir)
    begun = any((row.job, row.restart) == (job, restart) for row in (*history.open_attempt(run_dir), *rows[-1:]))
    if not begun:  # not even rank 0 got that far; an older attempt may still be open
        history.begin(run_dir, job, restart, env.get("SLURM_JOB_NODELIST", ""), 0)
        if (line := launch_error(errors)) is not None and code:
            try_write("state.json", lambda: end(run_dir, Writer.BATCH, End.NOT_LAUNCHED, line))
    row = history.close(run_dir, code=code, output=errors)
    rows = history.read(run_dir)
    if row is not None and row not in rows[-1:]:
        rows.append(row)  # a full disk: the row was not written
    how = End(rows[-1].end) if rows else End.KILLED
    if code == 0 or not ENDS[how].again or owner.cancelled_by(run_dir, current):
        return False
    state = read_state(run_dir)
    if not begun and end_of(state) in (End.MISTAKE, End.ERROR):  # recorded before the attempt began
        return False
    reason = str(state.get("reason", ""))
    if how is End.KILLED:
        reason = f"its processes ended after step {state.get('step', 0)} without giving a reason (exit code {code})"
    refused = history.why_not_requeue(rows, restart, max_requeues)
    if refused is None:
        exclusion = _exclusion(run_dir, job, rows)
        if exclusion.note:
            reason = f"{reason}; {exclusion.note}"
            elastic_restart.report(run_dir, "bad nodes", "the run is requeued", exclusion.note)
        # Before the request: this process ends with the old job, and state.json then belongs to the new one.
        try_write("state.json", lambda: end(run_dir, Writer.BATCH, how, reason))
        print(f"{how}: {reason}: job {job} is requeued", file=sys.stderr, flush=True)
        notify.send(run_dir)  # about a hang
        refused = _requeue(run_dir, job, exclusion)
    if refused is not None:
        last = ENDS[how].state or State.FAILED
        why = f"{reason}; {refused}" if reason else refused
        try_write("state.json", lambda: move(run_dir, Writer.BATCH, last, end=how, reason=why, given_up=True))
        print(f"not requeued: {why}", file=sys.stderr)
    return refused is None


def _without_claim(run_dir: Path, current: Owner | None, code: int, restart: int, max_requeues: int, job: str) -> bool:
    """Handles a job that ended before its ranks met, and so never owned the run. Requeues it if the cause may pass and
    nobody else owns the run; returns whether it did."""
    ((_, found),) = owner.owners([run_dir])
    if code != EXIT_REQUEUE or found.lives is not False or restart >= max_requeues:
        print(f"not requeued: the run belongs to {current or 'nobody'} (exit code {code})", file=sys.stderr)
        return False
    print(f"its ranks did not meet: job {job} is requeued", file=sys.stderr, flush=True)
    refused = _requeue(run_dir, job, Exclusion())
    if refused is not None:
        print(f"not requeued: {refused}", file=sys.stderr)
    return refused is None


def launch_error(errors: Path | None) -> str | None:
    """The line that says why srun, or the profile's `setup`, failed before any rank started; None if there is none.
    srun's messages about a task that did start have the task's number."""
    own = [line for line in job_output.since_start(errors) if _REFUSED.match(line) and not _PASSES.search(line)]
    return own[-1] if own else None


def is_cancelled(env: Mapping[str, str]) -> bool:
    """Whether Slurm is ending this job for good, as far as it says so in time: after scancel, but not in the grace time
    of a preemption (the job is still running), and not once it is requeued (the restart is counted at once)."""
    job = nodes.facts(client.ask("scontrol", "show", "job", owner.job_id(env), timeout_s=CALL_S).out)
    again = job.get("Restarts", "0") != env.get("SLURM_RESTART_COUNT", "0")
    return job.get("JobState") in ("CANCELLED", "COMPLETING") and not again


def _exclusion(run_dir: Path, job: str, rows: Sequence[history.Attempt]) -> Exclusion:
    """Which nodes to exclude because they failed attempts of this job. A newly submitted job excludes none."""
    bad = nodes.repeatedly_failing(row.failed_nodes for row in rows if row.job == job)
    if not bad:
        return Exclusion()
    facts = nodes.facts(client.ask("scontrol", "--oneliner", "show", "job", job).out)
    partition = ["--partition", facts["Partition"]] if "Partition" in facts else []
    answer = client.ask("sinfo", "--noheader", "--Node", "--format=%N|%T|%f|%P", *partition)
    with suppress(UserError):
        usable = nodes.usable(answer.out, facts.get("Features", ""))
        if answer.trouble is None and usable is not None and "NumNodes" in facts:
            needed = elastic_restart.fewest_nodes(run_dir) or nodes.fewest(facts)
            return nodes.exclusion(bad, nodes.excluded(facts), usable, needed)
    return Exclusion(
        note=f"{', '.join(bad)} failed {nodes.LIMIT} attempts: not excluded, as the remaining nodes are unknown"
    )


def _requeue(run_dir: Path, job: str, exclusion: Exclusion) -> str | None:
    """Asks Slurm to requeue the job without some nodes; returns why it does not. Slurm accepts a list of nodes to
    exclude only for a pending job."""
    trouble = ""
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE_S)
        if owner.cancelled_by(run_dir, ownership.read(run_dir)):
            return "it was cancelled"
        with _ignoring_sigterm():
            answer = client.ask("scontrol", "requeue", job, timeout_s=TRY_S)
            if answer.trouble is None:
                _exclude(job, exclusion)
                return None
        trouble = f"scontrol requeue: {answer.trouble}"
    return f"Slurm does not requeue it: {trouble}; submit it again to continue"


@contextmanager
def _ignoring_sigterm() -> Iterator[None]:
    """Ignores SIGTERM while entered, also in the programs called: Slurm sends it as soon as the job is requeued, and
    SIGKILL some seconds later."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exclude(job: str, exclusion: Exclusion) -> None:
    if not exclusion.nodes:
        return
    answer = client.ask("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(exclusion.nodes)}")
    if answer.trouble is not None:
        print(f"nodes were not excluded: scontrol update: {answer.trouble}", file=sys.stderr, flush=True)


def main(folder: str, code: int) -> int:
    """Settles the job of this batch script; returns the exit code that Slurm records. That is srun's, except for a
    cancelled run: there srun may end rank 1 when rank 0 exits, and return 143. folder: submitit's, with the submitted
    callable."""
    from submitit.core.utils import JobPaths

    paths = JobPaths(folder, owner.job_id(os.environ))
    job = pickles.submitted(folder, owner.job_id(os.environ))
    if not settle(Path(job.run_dir), code, job.max_requeues, os.environ, paths.stderr):
        elastic_restart.stop(Path(job.run_dir), owner.job_id(os.environ))
    notify.send(Path(job.run_dir))
    return EXIT_STOPPED if code and end_of(read_state(Path(job.run_dir))) is End.STOPPED else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
