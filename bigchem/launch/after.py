"""What the batch script of a Slurm job runs after srun: it starts the job again, or says why not.

Here and not in the ranks, because it outlives all of them: a rank that is killed, or stands in a collective operation
that will never end, cannot ask for anything. It does not run where Slurm itself ends the job: after scancel, which is
to stop it, and after a node failure and a preemption, after which Slurm starts it again.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bigchem.launch import history, owner
from bigchem.launch.slurm import client
from bigchem.train import ownership
from bigchem.train.lifecycle import ENDS, End, State, Writer, end_of
from bigchem.train.rows import goes_on
from bigchem.train.state import end, move, read_state

CALL_S = 5.0
TRIES, TRY_S, PAUSE_S = 10, 30.0, 10.0
"""A controller that is being restarted does not answer for a while."""
TAIL = 65536
"""Bytes of the batch script's output in which its last words are looked for."""

START = "bigchem: start "
"""What the batch script says first, each time that it is started: its output is appended to."""
_REFUSED = re.compile(r"srun: (error|fatal): (?!.*\btasks? [\d,-]+:)|slurmstepd: error: execve|setup failed")
_PASSES = re.compile(r"timed out|unable to contact|connection refused|temporarily|node failure|\*\*\*", re.IGNORECASE)
"""What the next start may not meet again."""


def settle(run_dir: Path, code: int, max_requeues: int, env: Mapping[str, str], said: Path | None = None) -> None:
    """Closes the attempt and, if the run is to go on, requeues the job.

    code: srun's exit code, the largest of its tasks'. env: the batch script's. said: the file with what srun printed.
    """
    job, restart = owner.job_id(env), int(env.get("SLURM_RESTART_COUNT", "0"))
    has_run = ownership.read(run_dir)
    if has_run is None or not owner.is_jobs(has_run, env):
        print(f"not started again: the run belongs to {has_run or 'nobody'}", file=sys.stderr)
        return
    rows = history.read(run_dir)
    begun = any((row.job, row.restart) == (job, restart) for row in (*history.opened(run_dir), *rows[-1:]))
    if not begun:  # not even rank 0 has come as far as that; an older attempt may stand open
        history.begin(run_dir, job, restart, env.get("SLURM_JOB_NODELIST", ""), 0)
        if (line := launch_error(said)) is not None and code:
            goes_on("state.json", lambda: end(run_dir, Writer.BATCH, End.NOT_LAUNCHED, line))
    row = history.close(run_dir, code=code)
    rows = history.read(run_dir)
    if row is not None and row not in rows[-1:]:
        rows.append(row)  # a full disk takes no rows
    how = End(rows[-1].end) if rows else End.KILLED
    if code == 0 or not ENDS[how].again or owner.cancelled_by(run_dir, has_run):
        return
    state = read_state(run_dir)
    if not begun and end_of(state) is End.MISTAKE:  # told before the attempt was begun
        return
    reason = str(state.get("reason", ""))
    if how is End.KILLED:
        reason = f"its processes ended after step {state.get('step', 0)} without a word (exit code {code})"
    refused = history.refusal(rows, restart, max_requeues)
    if refused is None:
        # Before it is asked for: this process ends with the old job, and the new one has the word then.
        goes_on("state.json", lambda: end(run_dir, Writer.BATCH, how, reason))
        print(f"{how}: {reason}: job {job} is started again", file=sys.stderr, flush=True)
        refused = _requeued(run_dir, job)
    if refused is not None:
        kept = ENDS[how].state or State.FAILED
        words = f"{reason}; {refused}" if reason else refused
        goes_on("state.json", lambda: move(run_dir, Writer.BATCH, kept, end=how, reason=words, given_up=True))
        print(f"not started again: {words}", file=sys.stderr)


def launch_error(said: Path | None) -> str | None:
    """The line that says why srun, or the profile's `setup`, failed before it started any rank; None if there is none.
    What srun says of a task that it did start has the task's number."""
    if said is None:
        return None
    lines: list[str] = []
    with suppress(OSError), said.open("rb") as file:
        file.seek(max(0, said.stat().st_size - TAIL))
        lines = file.read().decode(errors="replace").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(START)]
    own = [line for line in lines[starts[-1] if starts else 0 :] if _REFUSED.match(line) and not _PASSES.search(line)]
    return own[-1] if own else None


def is_cancelled(env: Mapping[str, str]) -> bool:
    """Whether Slurm is ending this job for good, as far as it says so in time: after scancel, but not in the grace time
    of a preemption (it runs still), nor when Slurm has put it back into the queue (it counts the restart at once)."""
    told = client.ask("scontrol", "show", "job", owner.job_id(env), timeout_s=CALL_S).out
    said = dict(word.split("=", 1) for word in told.split() if "=" in word)
    again = said.get("Restarts", "0") != env.get("SLURM_RESTART_COUNT", "0")
    return said.get("JobState") in ("CANCELLED", "COMPLETING") and not again


def _requeued(run_dir: Path, job: str) -> str | None:
    """Asks Slurm to start the job again; why it does not. Slurm ends this very process soon after."""
    trouble = ""
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE_S)
        if owner.cancelled_by(run_dir, ownership.read(run_dir)):
            return "it was cancelled"
        answer = client.ask("scontrol", "requeue", job, timeout_s=TRY_S)
        if answer.trouble is None:
            return None
        trouble = f"scontrol requeue: {answer.trouble}"
    return f"Slurm does not start it again: {trouble}; submit it again to go on"


def main(folder: str, code: int) -> int:
    """Settles the job that this batch script belongs to; srun's exit code, so that Slurm records it. folder: of
    submitit, which holds what was submitted."""
    from submitit.core.utils import DelayedSubmission, JobPaths

    paths = JobPaths(folder, owner.job_id(os.environ))
    job = DelayedSubmission.load(paths.submitted_pickle).function
    settle(Path(job.run_dir), code, job.max_requeues, os.environ, paths.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
