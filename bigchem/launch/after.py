"""What the batch script of a Slurm job runs after srun: it starts the job again, or says why not.

Here and not in the ranks, because it outlives all of them: a rank that is killed, or stands in a collective operation
that will never end, cannot ask for anything. It does not run where Slurm itself ends the job: after scancel, which is
to stop it, and after a node failure and a preemption, after which Slurm starts it again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bigchem.launch import history
from bigchem.launch.status import read_submission
from bigchem.train.rows import goes_on
from bigchem.train.state import progress, read_state, write_state

FINAL = ("finished", "trained", "stopped", "failed")
"""Ends after which a job is not started again."""
CALL_S = 5.0
TRIES, TRY_S, PAUSE_S = 10, 30.0, 10.0
"""A controller that is being restarted does not answer for a while."""


def settle(run_dir: Path, code: int, max_requeues: int, env: Mapping[str, str]) -> None:
    """Closes the attempt and, if the run is to go on, requeues the job. code: srun's exit code, the largest of its
    tasks'. env: the batch script's."""
    job, restart = job_id(env), int(env.get("SLURM_RESTART_COUNT", "0"))
    rows = history.read(run_dir)
    if not any((row.job, row.restart) == (job, restart) for row in (*history.opened(run_dir), *rows[-1:])):
        # Not even rank 0 has come as far as to begin; an older attempt may stand open.
        history.begin(run_dir, job, restart, env.get("SLURM_JOB_NODELIST", ""), 0)
    row = history.close(run_dir, code=code)
    rows = history.read(run_dir)
    if row is not None and row not in rows[-1:]:
        rows.append(row)  # a full disk takes no rows
    end = rows[-1].end if rows else "killed"
    if code == 0 or end in FINAL or "cancelled" in read_submission(run_dir):
        return
    state = read_state(run_dir)
    if state["state"] == "failed" and "code" in state:  # a user's mistake, told before the attempt was begun
        return
    reason = str(state.get("reason", ""))
    if end == "killed":
        reason = f"its processes ended after step {state.get('step', 0)} without a word (exit code {code})"
    refused = history.refusal(rows, restart, max_requeues)
    if refused is None:
        # Before it is asked for: this process ends with the old job, and the new one has the word then.
        goes_on("state.json", lambda: write_state(run_dir, "stopped", **progress(state), reason=reason, again=True))
        print(f"{end}: {reason}: job {job} is started again", file=sys.stderr, flush=True)
        refused = _requeued(run_dir, job)
    if refused is not None:
        name, words = ("stopped" if end == "preempted" else "failed"), f"{reason}; {refused}" if reason else refused
        goes_on("state.json", lambda: write_state(run_dir, name, **progress(state), reason=words))
        print(f"not started again: {words}", file=sys.stderr)


def job_id(env: Mapping[str, str]) -> str:
    """A job's id, or that of a task of an array: by SLURM_JOB_ID alone all of the array would be meant, for one of its
    tasks."""
    array = env.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{env['SLURM_ARRAY_TASK_ID']}" if array else env["SLURM_JOB_ID"]


def is_cancelled(env: Mapping[str, str]) -> bool:
    """Whether Slurm is ending this job for good, as far as it says so in time: after scancel, but not in the grace time
    of a preemption (it runs still), nor when Slurm has put it back into the queue (it counts the restart at once)."""
    command = ["scontrol", "show", "job", job_id(env)]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    said = dict(word.split("=", 1) for word in told.split() if "=" in word)
    again = said.get("Restarts", "0") != env.get("SLURM_RESTART_COUNT", "0")
    return said.get("JobState") in ("CANCELLED", "COMPLETING") and not again


def _requeued(run_dir: Path, job: str) -> str | None:
    """Asks Slurm to start the job again; why it does not. Slurm ends this very process soon after."""
    trouble = ""
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE_S)
        if "cancelled" in read_submission(run_dir):
            return "it was cancelled"
        command = ["scontrol", "requeue", job]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=TRY_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            trouble = f"scontrol requeue: {type(error).__name__}"
            continue
        if told.returncode == 0:
            return None
        trouble = f"scontrol requeue: {told.stderr.strip()}"
    return f"Slurm does not start it again: {trouble}; submit it again to go on"


def main(folder: str, code: int) -> int:
    """Settles the job that this batch script belongs to; srun's exit code, so that Slurm records it. folder: of
    submitit, which holds what was submitted."""
    from submitit.core.utils import DelayedSubmission, JobPaths

    job = DelayedSubmission.load(JobPaths(folder, job_id(os.environ)).submitted_pickle).function
    settle(Path(job.run_dir), code, job.max_requeues, os.environ)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
