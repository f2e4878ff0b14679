"""Work in many tasks: on Slurm one job array per step, which starts when the previous one has succeeded; elsewhere
processes of this machine, a few at a time."""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bigchem.base import atomic, json_file
from bigchem.base.errors import UserError
from bigchem.launch.cluster import pickles
from bigchem.launch.cluster.executors import Submission, make_executor, submit_call
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.cluster.scratch import use_scratch
from bigchem.launch.cluster.snapshot import check_own, snapshot
from bigchem.launch.slurm import squeue
from bigchem.launch.slurm.options import OneShot, with_dependency
from bigchem.run.ownership import JobId

LOCAL_POLL_S = 0.05


@dataclass(frozen=True)
class Task(pickles.Resubmitted):
    """What submitit pickles: a module's function and its arguments. If restarted, the function does what is left."""

    function: Callable[..., object]
    arguments: tuple[object, ...]
    env: tuple[tuple[str, str], ...] = ()
    scratch: str | None = None

    def __call__(self) -> None:
        """Runs it in this process."""
        os.environ.update(self.env)
        if self.scratch is not None:
            use_scratch(self.scratch)
        try:
            check_own()
            self.function(*self.arguments)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)  # into the task's log
            raise


@dataclass(frozen=True)
class Step:
    """Tasks that may run at the same time: one function, called with each of the arguments."""

    name: str
    function: Callable[..., object]
    arguments: Sequence[tuple[object, ...]]


@dataclass(frozen=True)
class SubmittedStep:
    """A submitted step. jobs: submitit's, in the order of its arguments."""

    step: Step
    jobs: Sequence[Any]


def one_process(profile: ClusterProfile, *, gpu: bool) -> ClusterProfile:
    """The profile for tasks of one process each. gpu: with a process's share of a node, and one GPU if the profile has
    any; else with all cores and memory of a node, and no GPU. A job for one GPU drops `exclusive`."""
    ranks = profile.tasks_per_node
    update: dict[str, Any]
    if gpu:
        update = {"mem_gb": None if profile.mem_gb is None else profile.mem_gb / ranks}
        update |= {"gpus_per_node": min(1, profile.gpus_per_node)}
    else:
        mem = profile.mem_gb
        if profile.mem_per_gpu_gb is not None:
            mem = profile.mem_per_gpu_gb * profile.gpus_per_node
        cores = None if profile.cpus_per_task is None else profile.cpus_per_task * ranks
        update = {"mem_gb": mem, "cpus_per_task": cores, "gpus_per_node": 0}
        update |= dict.fromkeys(("gpu_type", "gpu_memory_gb", "mem_per_gpu_gb"))
    sbatch = {name: value for name, value in profile.sbatch.items() if name != "exclusive" or not gpu}
    update |= {"nodes": 1, "nodes_max": None, "tasks_per_node": 1, "sbatch": sbatch}
    return profile.model_copy(update=update)


def submit_array(executor: Any, calls: Sequence[object], limit: int | None, after: str | None = None) -> list[Any]:
    """Submits an array to Slurm; returns submitit's jobs. limit: tasks at a time. after: a dependency; the array is
    cancelled if it can never be met."""
    executor.update_parameters(array_parallelism=limit or len(calls))
    if after is not None:
        more = with_dependency(executor.parameters.get("additional_parameters", {}), after)
        executor.update_parameters(additional_parameters=more)
    jobs: list[Any] = submit_call(lambda: executor.submit_array(calls), str(executor.folder))
    return jobs


def array_id(jobs: Sequence[Any]) -> str:
    """Slurm's id of all of an array's jobs."""
    return str(jobs[0].job_id).partition("_")[0]


def run_steps(
    steps: Sequence[Step],
    profile: ClusterProfile,
    folder: Path,
    name: str,
    mounts: Sequence[Path],
    say: Callable[[str], None],
    *,
    stay: bool,
    options: OneShot | None,
) -> bool:
    """Runs steps here, or submits them to Slurm; returns whether they are done. stay: wait for Slurm's. options: for
    this submission."""
    if profile.executor == "local":
        run_here(steps, profile, folder, say)
        return True
    submitted = submit_steps(steps, profile, folder, name, mounts, options)
    for s in submitted:
        say(f"{s.step.name}: {len(s.jobs)} tasks, from job {s.jobs[0].job_id} on; logs in {folder}")
    if stay:
        wait(submitted, say)
    return stay


def submit_steps(
    steps: Sequence[Step],
    profile: ClusterProfile,
    folder: Path,
    name: str,
    mounts: Sequence[Path],
    options: OneShot | None = None,
) -> list[SubmittedStep]:
    """Submits steps to Slurm, each depending on the previous one, and records their jobs in `folder` for
    `refuse_active`. options: for this submission; only the first step waits for other jobs."""
    code, done, once = snapshot(folder / "code"), list[SubmittedStep](), options or OneShot()
    for step in steps:
        mine = once.begun() if done else once
        made = Submission(profile, folder, f"{name}-{step.name}", code, mounts, mine, is_run=False)
        executor = make_executor(made)
        after = f"afterok:{array_id(done[-1].jobs)}" if done else None
        done.append(SubmittedStep(step, submit_array(executor, _calls(step, profile), profile.max_concurrent, after)))
        jobs = [str(job.job_id) for submitted in done for job in submitted.jobs]
        atomic.write_atomically(folder / "submission.json", json.dumps({"jobs": jobs}))
    return done


def refuse_active(folder: Path, what: str) -> None:
    """UserError if jobs that `submit_steps` submitted are active, or if that is unknown."""
    file, hint = folder / "submission.json", "`squeue --me` shows your jobs; if none of these runs, remove the file"
    try:
        table = json_file.load_object(file, hint=hint)
    except FileNotFoundError:
        return
    jobs = json_file.as_kind(list[JobId], table.get("jobs"), str(file), hint=hint)
    queue = squeue.ask(jobs)
    if queue.trouble:
        raise UserError(
            f"cannot tell whether its jobs still run: {queue.trouble}", what, f"try again later, or remove {file}"
        )
    if active := [job for job in jobs if job in queue.jobs and not queue.jobs[job].gone]:
        raise UserError(
            f"{len(active)} of its jobs are already queued or running, such as {active[0]}",
            what,
            f"wait for them, or `scancel {active[0].partition('_')[0]}`",
        )


def run_here(steps: Sequence[Step], profile: ClusterProfile, folder: Path, say: Callable[[str], None]) -> None:
    """Runs steps in processes of this machine, at most max_concurrent at a time. UserError if tasks of a step fail,
    once the step's other tasks have ended."""
    code = snapshot(folder / "code")
    for step in steps:
        waiting, running, done = _calls(step, profile), list[Any](), list[Any]()
        executor = make_executor(Submission(profile, folder, step.name, code, is_run=False))
        try:
            while waiting or running:
                while waiting and len(running) < (profile.max_concurrent or 1):
                    running.append(submit_call(partial(executor.submit, waiting.pop(0)), str(folder)))
                    done.append(running[-1])
                time.sleep(LOCAL_POLL_S)
                running = [job for job in running if not job.done()]
        except BaseException:
            for job in running:
                job.cancel()
            raise
        raise_failed(SubmittedStep(step, done), squeue.Queue())
        say(f"{step.name}: {len(done)} of {len(done)} done")


def wait(submitted: Sequence[SubmittedStep], say: Callable[[str], None]) -> None:
    """Waits until all jobs have left the queue, reporting changes. UserError if any has failed."""
    reported = ""
    while True:
        queue = squeue.ask([str(job.job_id) for step in submitted for job in step.jobs])
        progress = queue.trouble or ", ".join(_progress(step, queue) for step in submitted)
        if progress != reported:
            reported = progress
            say(progress)
        if not queue.trouble and not any(_alive(job, queue) for step in submitted for job in step.jobs):
            break
        time.sleep(squeue.POLL_S)
    for step in submitted:
        raise_failed(step, queue)


def raise_failed(submitted: SubmittedStep, queue: squeue.Queue) -> None:
    """Raises a UserError that names a step's failed tasks, if any, and why the first failed."""
    found = {number: _failure(job, queue) for number, job in enumerate(submitted.jobs)}
    failed = {number: why for number, why in found.items() if why is not None}
    if failed:
        first = next(iter(failed))
        raise UserError(
            f"{submitted.step.name}: {len(failed)} of {len(found)} tasks failed: "
            f"{', '.join(map(str, failed))}; the first: {failed[first]}",
            str(submitted.jobs[first].paths.stderr),
            "the same command again does only what is missing",
        )


def _calls(step: Step, profile: ClusterProfile) -> list[Task]:
    return [Task(step.function, args, tuple(profile.env.items()), profile.scratch) for args in step.arguments]


def _alive(job: Any, queue: squeue.Queue) -> bool:
    found = queue.jobs.get(str(job.job_id))
    return found is not None and not found.gone


def _progress(submitted: SubmittedStep, queue: squeue.Queue) -> str:
    jobs = [queue.jobs.get(str(job.job_id)) for job in submitted.jobs]
    waiting = sum(job is not None and job.waits for job in jobs)
    ended = sum(job is None or job.gone for job in jobs)
    parts = [f"{n} {word}" for n, word in ((waiting, "waiting"), (len(jobs) - waiting - ended, "running")) if n]
    return f"{submitted.step.name} {' and '.join(parts) if parts else 'over'}"


def _failure(job: Any, queue: squeue.Queue) -> str | None:
    """Why a job that is over has no result; None if it has one."""
    file = job.paths.result_pickle
    if file.is_file():
        outcome, value = pickles.result(file)
        if outcome == "success":
            return None
        lines = [line for line in str(value).splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
        return lines[-1].removeprefix("bigchem.base.errors.UserError: ") if lines else str(value)
    found = queue.jobs.get(str(job.job_id))
    return f"{found.state} ({found.reason})" if found is not None else "gone without a result"
