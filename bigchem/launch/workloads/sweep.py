"""Submits many runs: on Slurm one array for each shape of job, here a few at a time. Skips runs that are done."""

import os
import re
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from bigchem.base import atomic, toml
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.launch.cluster.arrays import array_id, submit_array
from bigchem.launch.cluster.executors import Submission, make_executor
from bigchem.launch.cluster.fork_server import ForkServers
from bigchem.launch.cluster.pickles import Resubmitted
from bigchem.launch.cluster.profile import ClusterProfile, recorded
from bigchem.launch.cluster.scratch import use_scratch
from bigchem.launch.cluster.snapshot import snapshot
from bigchem.launch.runs import owner
from bigchem.launch.runs.prepare import absolute, folders_of, preflight, prepare
from bigchem.launch.runs.status import UNREADABLE, RunStatus, has_succeeded, pause_s, statuses
from bigchem.launch.slurm.options import OneShot
from bigchem.launch.submit import Submitted, checked, job_of, submit, wait_for_any, why_not_submit
from bigchem.launch.workloads.sweep_cost import estimate, summary
from bigchem.run.log_files import has_diverged

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
Say = Callable[[RunStatus], None]


@dataclass(frozen=True)
class SweepRun:
    """A run and its profile. evaluation: the profile of a separate evaluation job; None: the training job evaluates."""

    config: RunConfig
    profile: ClusterProfile
    evaluation: ClusterProfile | None = None


@dataclass(frozen=True)
class EvaluationJob(Resubmitted):
    """Consolidates and evaluates a trained run on all processes of the job. What submitit pickles."""

    run_dir: str
    env: tuple[tuple[str, str], ...] = ()
    scratch: str | None = None

    def __call__(self) -> None:
        """Runs it in this process of the job."""
        from bigchem.launch import early_exit
        from bigchem.launch.job import consolidate_and_evaluate, log_to
        from bigchem.launch.rendezvous.environment import rendezvous
        from bigchem.launch.rendezvous.process_group import finish, start
        from bigchem.launch.rendezvous.secret import rendezvous_key
        from bigchem.run import notify
        from bigchem.run.lifecycle import State, Writer
        from bigchem.run.state import move, read_state

        os.environ.update(self.env)
        if self.scratch is not None:
            use_scratch(self.scratch)
        run_dir, place = Path(self.run_dir), rendezvous(os.environ, os.getpid())
        log_to(run_dir, place.rank, tee=False)
        before, claim = read_state(run_dir), owner.of_job(run_dir, os.environ)
        if before["state"] != "trained":
            print(f"the run is {before['state']}: nothing to evaluate", file=sys.stderr)
            return

        def record(error: BaseException) -> None:
            reason = f"not evaluated: {early_exit.reason_of(error)}"
            move(run_dir, Writer.EVALUATION, State.TRAINED, end=before.get("end"), reason=reason)
            notify.send(run_dir, notify.RANK_WAIT_S)

        with early_exit.exit_together(record):
            start(place, key=rendezvous_key(run_dir, place))
            consolidate_and_evaluate(toml.load(RunConfig, run_dir / "config.toml"), place, claim)
            finish()
        if place.rank == 0:
            notify.send(run_dir)


def at_a_time(profile: ClusterProfile, runs: int, chosen: Collection[str] = ()) -> ClusterProfile:
    """The profile with so many concurrent runs. On this machine's CPU they divide its cores, unless the fields are
    among the chosen ones."""
    changes: dict[str, Any] = {"max_concurrent": runs}
    if profile.executor == "local" and not profile.gpus_per_node:
        cores = max(1, len(os.sched_getaffinity(0)) // runs)
        tasks = profile.tasks_per_node if "tasks_per_node" in chosen else min(profile.tasks_per_node, cores)
        threads = {"OMP_NUM_THREADS": str(max(1, cores // tasks))}
        changes |= {"tasks_per_node": tasks, "env": threads | profile.env}
    return profile.model_copy(update=changes)


def cost_text(runs: Sequence[SweepRun], gpu: str | None = None) -> str:
    """Hours and disk of the whole design; see sweep_cost.estimate."""
    profile = runs[0].profile
    at_a_time = profile.max_concurrent or (1 if profile.executor == "local" else None)
    return summary(estimate([(absolute(run.config), run.profile) for run in runs], gpu), at_a_time)


def dry_run_text(runs: Sequence[SweepRun]) -> str:
    """What submitting would do if nothing were done yet. Writes nothing."""
    lines = []
    for alike in _shapes(runs):
        profile = alike[0].profile
        nodes = f"{profile.nodes}-{profile.nodes_max}" if profile.nodes_max else profile.nodes
        box = f"{nodes} x {profile.tasks_per_node} processes, {profile.gpus_per_node} GPUs a node"
        limit = profile.max_concurrent or (1 if profile.executor == "local" else len(alike))
        lines.append(f"# {len(alike)} runs of {box}, {profile.time_min} min, {min(limit, len(alike))} at a time")
        lines += [
            f"{run.config.run_dir}  {run.config.model.preset}  {' '.join(run.config.data.mixture) or 'all tasks'}  "
            f"{run.config.train.steps} steps"
            for run in alike
        ]
        if (after := alike[0].evaluation) is not None and profile.executor == "slurm":
            lines.append(f"# then each evaluated by {after.nodes} x {after.tasks_per_node} processes")
    return "\n".join(lines)


def submit_sweep(
    runs: Sequence[SweepRun],
    name: str,
    say: Say,
    options: OneShot | None = None,
    budget_s: float | None = None,
    *,
    may_diverge: bool = False,
) -> list[Path]:
    """Submits every run that is neither done nor active, and reports the status of each. options: for this submission.

    On Slurm, returns once all are queued: one array for all runs that need the same resources, and one array of
    evaluations, each of which starts when its run is trained. Elsewhere, waits for all; a run that fails does not stop
    the others, and the UserError at the end names the failed ones.

    budget_s: not for Slurm. Runs that by their estimate would not end within so many seconds from now are not started:
    their folders are returned. A run whose speed is unknown is started, and measures it. may_diverge: a run that ends
    by bad steps is no failure.
    """
    if not any(run.profile.executor == "slurm" for run in runs):
        return _run_here(runs, say, budget_s, may_diverge=may_diverge)
    if budget_s is not None:
        raise UserError("is for the local executor", "--budget", "on Slurm, --time limits each job")
    _submit_arrays([_for_slurm(run) for run in runs], name, say, options or OneShot())
    return []


def read_budget(text: str) -> float:
    """12h, 90m, 2.5d: seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if found is None or float(found[1]) == 0:
        raise UserError(f"cannot read '{text}'", "--budget", "write 12h, 90m or 2.5d")
    return float(found[1]) * UNITS[found[2]]


def wait_for_all(run_dirs: Sequence[Path], say: Say, *, may_diverge: bool = False) -> None:
    """Waits until no run has a job, reporting changes from now on. UserError if any is not done. may_diverge: as in
    submit_sweep."""
    reported = {row.run: (row.state, row.step) for row in statuses(run_dirs)}
    pause = max(map(pause_s, run_dirs), default=0.0)
    while True:
        rows = statuses(run_dirs)
        for row in rows:
            if reported.get(row.run) != (row.state, row.step):
                reported[row.run] = (row.state, row.step)
                say(row)
        if all(row.active is False or row.state == UNREADABLE for row in rows):
            break
        time.sleep(pause)
    failed = [
        (row.run, row.reason)
        for row, folder in zip(rows, run_dirs, strict=True)
        if not has_succeeded(folder, row) and not (may_diverge and has_diverged(folder))
    ]
    _raise_failed(failed, len(rows), "")


def _for_slurm(run: SweepRun) -> SweepRun:
    config = absolute(run.config)
    if run.evaluation is not None:
        config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"at_end": False})})
    return SweepRun(config, run.profile, run.evaluation)


def _submit_arrays(runs: Sequence[SweepRun], name: str, say: Say, options: OneShot) -> None:
    todo = _checked(runs)
    with ExitStack() as locks:
        for folder in sorted({run.config.run_dir for run in todo}):  # always in this order: no deadlock
            locks.enter_context(owner.start_lock(folder, "submits"))
        left = _left(todo)  # again, now that no other process can submit them
        for group in _shapes([run for run, what in left if what == "training"]):
            _submit_array(group, name, options)
        if alike := [run for run, what in left if what == "evaluation"]:
            jobs = _submit_evaluations(alike, name, None, options)
            for run, job in zip(alike, jobs, strict=True):
                known = {"evaluation": job, "output": str(_folder(run))}
                owner.record(run.config.run_dir, owner.submitted("slurm", job, **known))
    for row in statuses([run.config.run_dir for run in runs]):
        say(row)


def _checked(runs: Sequence[SweepRun]) -> list[SweepRun]:
    """The runs with something left to do, all of them checked before the first is submitted."""
    todo = [run for run, left in _left(runs) if left != "nothing"]
    for run in todo:
        for ranks in run.profile.world_sizes:
            preflight(run.config, ranks)
    return todo


def _left(runs: Sequence[SweepRun]) -> list[tuple[SweepRun, str]]:
    """Each run with what is left to do: training (and what follows), evaluation, nothing."""
    return [
        (run, _left_of(run, status))
        for run, status in zip(runs, statuses([run.config.run_dir for run in runs]), strict=True)
    ]


def _left_of(run: SweepRun, status: RunStatus) -> str:
    trained = status.state == "trained" and (status.early or status.step >= run.config.train.steps)
    if why_not_submit(run.config, status) is not None:
        return "nothing"
    if trained and run.evaluation is not None:
        return "evaluation"
    return "nothing" if trained and not run.config.evaluate.at_end else "training"


def _shapes(runs: Sequence[SweepRun]) -> list[list[SweepRun]]:
    """Groups runs by equal resources, in the order of first appearance."""

    def shape(run: SweepRun) -> str:
        return toml.dump(run.profile)

    order = list(dict.fromkeys(map(shape, runs)))
    return [list(group) for _, group in groupby(sorted(runs, key=lambda run: order.index(shape(run))), shape)]


def _folder(run: SweepRun) -> Path:
    """submitit's folder for an array's pickles and output, beside the run folders."""
    return Path(run.config.runs) / "submitit"


def _submit_array(runs: Sequence[SweepRun], name: str, options: OneShot) -> None:
    """Submits one array that trains the runs and, if they are evaluated separately, one that evaluates them."""
    profile, folder = runs[0].profile, _folder(runs[0])
    code = snapshot(folder.parent / "code")
    for run in runs:
        prepare(run.config)
        atomic.write_atomically(run.config.run_dir / "cluster.toml", recorded(profile))
    executor = make_executor(Submission(profile, folder, name, code, _mounts(runs), options))
    jobs = submit_array(executor, [job_of(run.config, profile) for run in runs], profile.max_concurrent)
    known = {"world_size": profile.world_size, "code": code.name, "output": str(folder)}
    owners = [owner.submitted("slurm", str(job.job_id), **known) for job in jobs]
    for run, run_owner in zip(runs, owners, strict=True):
        owner.record(run.config.run_dir, run_owner)
    if runs[0].evaluation is None:
        return
    evaluations = _submit_evaluations(runs, name, jobs, options.begun())
    for run, run_owner, evaluation in zip(runs, owners, evaluations, strict=True):
        owner.record(run.config.run_dir, replace(run_owner, evaluation=evaluation))


def _submit_evaluations(
    runs: Sequence[SweepRun], name: str, after: Sequence[object] | None, options: OneShot
) -> list[str]:
    """Submits jobs that evaluate the runs; returns Slurm's ids. after: the jobs that train them, in the same order."""
    profile, folder = runs[0].evaluation, _folder(runs[0])
    if profile is None:
        raise ValueError("the runs have no separate evaluation")
    code = snapshot(folder.parent / "code")
    made = Submission(profile, folder, f"{name}-evaluate", code, _mounts(runs), options, is_run=False)
    executor = make_executor(made)
    calls = [EvaluationJob(str(run.config.run_dir), tuple(profile.env.items()), profile.scratch) for run in runs]
    kind = "afterok" if len(calls) == 1 else "aftercorr"  # an array of one is a plain job
    depends = None if after is None else f"{kind}:{array_id(after)}"
    return [str(job.job_id) for job in submit_array(executor, calls, profile.max_concurrent, depends)]


def _mounts(runs: Sequence[SweepRun]) -> list[Path]:
    return list(dict.fromkeys([_folder(runs[0]).parent, *(path for run in runs for path in folders_of(run.config))]))


def _run_here(runs: Sequence[SweepRun], say: Say, budget_s: float | None, *, may_diverge: bool) -> list[Path]:
    waiting = _checked(runs)
    left = {run.config.run_dir for run in waiting}
    for row in statuses([run.config.run_dir for run in runs if run.config.run_dir not in left]):
        say(row)
    begun = time.monotonic()
    running, failed = list[Submitted](), list[tuple[str, str | None]]()
    where, not_started, reported = "", list[Path](), dict[Path, tuple[str, int]]()
    with ForkServers() as servers:
        while waiting or running:
            while waiting and len(running) < (waiting[0].profile.max_concurrent or 1):
                run = waiting.pop(0)
                if budget_s is not None and _too_long(run, begun + budget_s - time.monotonic()):
                    not_started.append(run.config.run_dir)
                else:
                    running.append(submit(run.config, run.profile, servers=servers))
            if not running:
                break
            over, status = wait_for_any(running, say, reported)
            running.remove(over)
            try:
                checked(over, status)
            except UserError as error:
                if not (may_diverge and has_diverged(over.run_dir)):
                    failed.append((over.run_dir.name, error.what))
                    where = where or str(error.where)
    _raise_failed(failed, len(runs), where)
    return not_started


def _too_long(run: SweepRun, seconds: float) -> bool:
    """Whether a run would not end in so many seconds, judged by the speed of the runs done so far."""
    (cost,) = estimate([(run.config, run.profile)]).costs
    return seconds <= 0 if cost.left_s is None else cost.left_s > max(0.0, seconds)


def _raise_failed(failed: Sequence[tuple[str, str | None]], of: int, where: str) -> None:
    if failed:
        names = ", ".join(name for name, _ in failed)
        what = f"{len(failed)} of {of} runs failed: {names}; the first: {failed[0][1] or 'no reason was recorded'}"
        raise UserError(what, where or None, "the same command again does only what is missing")
