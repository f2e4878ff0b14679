"""What the batch script of a Slurm job runs after srun: it starts the job again, or says why not.

Here and not in the ranks, because it outlives all of them: a rank that is killed, or stands in a collective operation
that will never end, cannot ask for anything. It does not run where Slurm itself ends the job: after scancel, which is
to stop it, and after a node failure and a preemption, after which Slurm starts it again.
"""

from __future__ import annotations

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
"""A controller that is being restarted does not answer for a while."""
_REFUSED = re.compile(r"srun: (error|fatal): (?!.*\btasks? [\d,-]+:)|slurmstepd: error: execve|setup failed")
_PASSES = re.compile(
    r"timed out|unable to contact|connection|temporarily|node failure|zero bytes|completing or completed|are busy"
    r"|launch failed|\*\*\*",
    re.IGNORECASE,
)
"""What the next start may not meet again."""


def settle(run_dir: Path, code: int, max_requeues: int, env: Mapping[str, str], errors: Path | None = None) -> bool:
    """Closes the attempt and, if the run is to go on, requeues the job; whether it goes on, or belongs to another job.

    code: srun's exit code, the largest of its tasks'. env: the batch script's. errors: the file with what srun printed.
    """
    job, restart = owner.job_id(env), int(env.get("SLURM_RESTART_COUNT", "0"))
    has_run = ownership.read(run_dir)
    if has_run is None or not owner.is_jobs(has_run, env):
        return _without_claim(run_dir, has_run, code, restart, max_requeues, job)
    rows = history.read(run_dir)
    begun = any((row.job, row.restart) == (job, restart) for row in (*history.open_attempt(run_dir), *rows[-1:]))
    if not begun:  # not even rank 0 has come as far as that; an older attempt may stand open
        history.begin(run_dir, job, restart, env.get("SLURM_JOB_NODELIST", ""), 0)
        if (line := launch_error(errors)) is not None and code:
            try_write("state.json", lambda: end(run_dir, Writer.BATCH, End.NOT_LAUNCHED, line))
    row = history.close(run_dir, code=code, said=errors)
    rows = history.read(run_dir)
    if row is not None and row not in rows[-1:]:
        rows.append(row)  # a full disk takes no rows
    how = End(rows[-1].end) if rows else End.KILLED
    if code == 0 or not ENDS[how].again or owner.cancelled_by(run_dir, has_run):
        return False
    state = read_state(run_dir)
    if not begun and end_of(state) in (End.MISTAKE, End.ERROR):  # told before the attempt was begun
        return False
    reason = str(state.get("reason", ""))
    if how is End.KILLED:
        reason = f"its processes ended after step {state.get('step', 0)} without a word (exit code {code})"
    refused = history.why_not_requeue(rows, restart, max_requeues)
    if refused is None:
        shunned = _shunned(run_dir, job, rows)
        if shunned.note:
            reason = f"{reason}; {shunned.note}"
            elastic_restart.report(run_dir, "bad nodes", "the run is started again", shunned.note)
        # Before it is asked for: this process ends with the old job, and the new one has the word then.
        try_write("state.json", lambda: end(run_dir, Writer.BATCH, how, reason))
        print(f"{how}: {reason}: job {job} is started again", file=sys.stderr, flush=True)
        notify.send(run_dir)  # of a hang
        refused = _requeued(run_dir, job, shunned)
    if refused is not None:
        kept = ENDS[how].state or State.FAILED
        words = f"{reason}; {refused}" if reason else refused
        try_write("state.json", lambda: move(run_dir, Writer.BATCH, kept, end=how, reason=words, given_up=True))
        print(f"not started again: {words}", file=sys.stderr)
    return refused is None


def _without_claim(run_dir: Path, has_run: Owner | None, code: int, restart: int, max_requeues: int, job: str) -> bool:
    """A job that ended before its ranks had met, so that the run is not its own; whether it is started again. It is if
    that may pass and nobody else has the run."""
    ((_, found),) = owner.owners([run_dir])
    if code != EXIT_REQUEUE or found.lives is not False or restart >= max_requeues:
        print(f"not started again: the run belongs to {has_run or 'nobody'} (exit code {code})", file=sys.stderr)
        return False
    print(f"its ranks have not met: job {job} is started again", file=sys.stderr, flush=True)
    refused = _requeued(run_dir, job, Exclusion())
    if refused is not None:
        print(f"not started again: {refused}", file=sys.stderr)
    return refused is None


def launch_error(errors: Path | None) -> str | None:
    """The line that says why srun, or the profile's `setup`, failed before it started any rank; None if there is none.
    What srun says of a task that it did start has the task's number."""
    own = [line for line in job_output.since_start(errors) if _REFUSED.match(line) and not _PASSES.search(line)]
    return own[-1] if own else None


def is_cancelled(env: Mapping[str, str]) -> bool:
    """Whether Slurm is ending this job for good, as far as it says so in time: after scancel, but not in the grace time
    of a preemption (it runs still), nor when Slurm has put it back into the queue (it counts the restart at once)."""
    told = client.ask("scontrol", "show", "job", owner.job_id(env), timeout_s=CALL_S).out
    job = nodes.facts(told)
    again = job.get("Restarts", "0") != env.get("SLURM_RESTART_COUNT", "0")
    return job.get("JobState") in ("CANCELLED", "COMPLETING") and not again


def _shunned(run_dir: Path, job: str, rows: Sequence[history.Attempt]) -> Exclusion:
    """What to do about nodes that failed attempts of this job. A job that a person submits begins without a list."""
    bad = nodes.repeatedly_failing(row.failed_nodes for row in rows if row.job == job)
    if not bad:
        return Exclusion()
    facts = nodes.facts(client.ask("scontrol", "--oneliner", "show", "job", job).out)
    partition = ["--partition", facts["Partition"]] if "Partition" in facts else []
    told = client.ask("sinfo", "--noheader", "--Node", "--format=%N|%T|%f|%P", *partition)
    with suppress(UserError):
        usable = nodes.usable(told.out, facts.get("Features", ""))
        if told.trouble is None and usable is not None and "NumNodes" in facts:
            needed = elastic_restart.fewest_nodes(run_dir) or nodes.fewest(facts)
            return nodes.exclusion(bad, nodes.excluded(facts), usable, needed)
    return Exclusion(
        note=f"{', '.join(bad)} failed {nodes.LIMIT} attempts: not excluded, as it is not known who is left"
    )


def _requeued(run_dir: Path, job: str, shunned: Exclusion) -> str | None:
    """Asks Slurm to start the job again, without some nodes; why it does not. Slurm takes a list of nodes to exclude
    only for a job that waits."""
    trouble = ""
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE_S)
        if owner.cancelled_by(run_dir, ownership.read(run_dir)):
            return "it was cancelled"
        with _undisturbed():
            answer = client.ask("scontrol", "requeue", job, timeout_s=TRY_S)
            if answer.trouble is None:
                _exclude(job, shunned)
                return None
        trouble = f"scontrol requeue: {answer.trouble}"
    return f"Slurm does not start it again: {trouble}; submit it again to go on"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """While entered, SIGTERM is ignored, by the programs that are called too: Slurm sends it as soon as the job is
    requeued, and kills some seconds later."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exclude(job: str, shunned: Exclusion) -> None:
    if not shunned.nodes:
        return
    answer = client.ask("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(shunned.nodes)}")
    if answer.trouble is not None:
        print(f"nodes were not excluded: scontrol update: {answer.trouble}", file=sys.stderr, flush=True)


def main(folder: str, code: int) -> int:
    """Settles the job that this batch script belongs to; the exit code that Slurm records. That is srun's, but for a
    cancelled run: there srun may end rank 1 as rank 0 leaves, and return 143. folder: of submitit, which holds what was
    submitted."""
    from submitit.core.utils import JobPaths

    paths = JobPaths(folder, owner.job_id(os.environ))
    job = pickles.submitted(folder, owner.job_id(os.environ))
    if not settle(Path(job.run_dir), code, job.max_requeues, os.environ, paths.stderr):
        elastic_restart.stop(Path(job.run_dir))
    notify.send(Path(job.run_dir))
    return EXIT_STOPPED if code and end_of(read_state(Path(job.run_dir))) is End.STOPPED else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
