"""What runs inside a job: train, consolidate, evaluate; requeue if stopped early."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.base.progress import Tee
from bigchem.config import RunConfig
from bigchem.launch import early_exit
from bigchem.launch.cluster.pickles import Resubmitted
from bigchem.launch.cluster.scratch import use_scratch
from bigchem.launch.cluster.snapshot import check_own
from bigchem.launch.rendezvous.environment import Rendezvous, rendezvous
from bigchem.launch.rendezvous.extensions import load_cpu_adam
from bigchem.launch.rendezvous.members import AbsentRankError
from bigchem.launch.rendezvous.process_group import finish, start
from bigchem.launch.rendezvous.secret import rendezvous_key
from bigchem.launch.requeue import is_cancelled
from bigchem.launch.runs import history, owner
from bigchem.run import notify, ownership
from bigchem.run.exit_codes import connection_lost, exit_now
from bigchem.run.lifecycle import ENDS, EXIT_REQUEUE, End, State, Writer, exit_code
from bigchem.run.log_files import Log, try_write
from bigchem.run.ownership import Claim
from bigchem.train.health import flight_recorder, peers
from bigchem.train.health.time_limit import LIMIT_SIGNAL

if TYPE_CHECKING:
    import torch

    from bigchem.train.health.watchdog import Requeue

SUBMITTER_S = 600.0
"""How long a job waits for the process that submits it, which holds the run's lock: a sweep submits many runs."""
EARLY_S = 120.0
"""How much earlier than requested Slurm may send the signal before a time limit: it checks once a minute."""


@dataclass(frozen=True)
class Job(Resubmitted):
    """The callable that submitit pickles. It holds only a path: what runs is what the run folder says.

    time_s: time limit. signal_delay_s: Slurm sends its signal this long before it. scratch: see ClusterProfile.
    """

    run_dir: str
    env: tuple[tuple[str, str], ...] = ()
    max_requeues: int = 20
    time_s: float | None = None
    signal_delay_s: float = 0.0
    scratch: str | None = None

    def __call__(self) -> str:
        """Runs the job in this process; returns how it ended."""
        os.environ.update(self.env)
        run_dir = Path(self.run_dir)
        try:
            if self.scratch is not None:
                use_scratch(self.scratch)
            place = rendezvous(os.environ, os.getpid())
            if place.rank == 0:
                check_own()
        except UserError as error:
            early_exit.record_failure(
                owner.of_job(run_dir, os.environ), int(os.environ.get("SLURM_PROCID", "0")), error
            )
            raise
        self._set_time_limit(place)
        log_to(run_dir, place.rank, tee=False)
        if place.launcher == "slurm":
            owner.await_submitter(run_dir, os.environ, SUBMITTER_S)
            if _was_cancelled(run_dir, os.environ):
                if place.rank == 0:
                    owner.of_job(run_dir, os.environ).end(Writer.RANK_0, End.STOPPED, "cancelled")
                    exit_now(exit_code(End.STOPPED))
                return End.STOPPED
            early_exit.exit_on_signal_unless_training(run_dir, place.rank)

        def requeue(lead: bool) -> int:
            try:
                self._requeue(place)
            except SystemExit as exiting:
                return int(exiting.code or 0) & 0xFF
            return EXIT_REQUEUE

        provisional = owner.of_job(run_dir, os.environ)
        with early_exit.exit_together(lambda error: early_exit.record_failure(provisional, place.rank, error)):
            claim = claimed(run_dir, place) if place.rank == 0 else provisional
            how = run(run_dir, place, claim, requeue=requeue)
        # One rank sets the job's exit code. srun then ends the others, which have nothing left to do.
        if place.rank == 0 and exit_code(how):
            exit_now(requeue(True) if ENDS[how].again else exit_code(how))
        return how

    def _set_time_limit(self, place: Rendezvous) -> None:
        """Sets the variables that time_limit.py reads. On Slurm they tell a time limit's signal from a preemption's."""
        if self.time_s is None:
            return
        if place.launcher == "slurm":
            os.environ[LIMIT_SIGNAL] = str(time.time() + self.time_s - self.signal_delay_s - EARLY_S)
        else:
            os.environ["BIGCHEM_JOB_END"] = str(time.time() + self.time_s)

    def _requeue(self, place: Rendezvous) -> None:
        """Asks submitit's local executor for another round, and exits with the code that says so. On Slurm this happens
        after all ranks have ended: see requeue.py."""
        if place.launcher == "submitit local":
            import submitit

            submitit.JobEnvironment()._requeue(self.max_requeues)
            sys.exit(-1)


def run_here(config: RunConfig) -> End:
    """Runs a job in this process, without a launcher or under torchrun or srun; returns how it ended.

    Rank 0 creates the run folder; the others learn whether that succeeded, and read the same configuration.
    """
    from bigchem.launch.runs.prepare import absolute, changed_fields, preflight, prepare
    from bigchem.launch.runs.status import run_status
    from bigchem.train.collectives import on_rank0
    from bigchem.train.health.watchdog import collective_timeout

    place = rendezvous(os.environ, os.getpid())
    config = absolute(config)
    before = run_status(config.run_dir)
    if before.is_done(config.train.steps) and not changed_fields(config):
        print(f"{config.run_dir}: already finished: nothing to do")
        return End.FINISHED
    if "SLURM_JOB_ID" in os.environ and _was_cancelled(config.run_dir, os.environ):
        print(f"{config.run_dir}: this job was cancelled before Slurm restarted it: nothing to do")
        return End.STOPPED
    preflight(config, place.world_size, ask_deepspeed=False)  # the engine will
    flight_recorder.arm(config.run_dir)
    try:
        key = rendezvous_key(config.run_dir, place)
        device = start(place, collective_timeout(config.health.hang_s), config.health.rendezvous_s, key)
    except AbsentRankError as error:
        print(f"error: {error}", file=sys.stderr)
        exit_now(EXIT_REQUEUE)

    def take() -> Claim:
        return claimed(config.run_dir, place, lambda: prepare(config), make=True)

    with early_exit.exit_together():
        claim = on_rank0(take)
        log_to(config.run_dir, place.rank, tee=place.rank == 0)
        how = run(config.run_dir, place, claim, device)
    if place.rank == 0:
        print(f"{config.run_dir}: {how}" + (", see results/table.md" if how is End.FINISHED else ""))
    return how


def claimed(
    run_dir: Path, place: Rendezvous, prepare: Callable[[], object] = lambda: None, *, make: bool = False
) -> Claim:
    """Makes this attempt the run's owner and begins it; rank 0 calls it. prepare: called under the run's lock. make:
    create the folder if it is missing."""
    job = owner.job_id(os.environ) if "SLURM_JOB_ID" in os.environ else str(os.getpid())
    nodes = os.environ.get("SLURM_JOB_NODELIST", platform.node())
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    with owner.start_lock(run_dir, "starts", timeout_s=SUBMITTER_S, make=make) as locked:
        claim = owner.claim(run_dir, owner.of_this_process(os.environ, place.world_size), locked=locked)
        prepare()
        history.begin(run_dir, job, restart, nodes, place.world_size)  # while state.json describes the last attempt
        claim.move(Writer.RANK_0, State.PREPARED)
    return claim


def run(
    run_dir: Path,
    place: Rendezvous,
    claim: Claim,
    device: torch.device | None = None,
    requeue: Requeue | None = None,
) -> End:
    """Trains the run of a run folder and, after its last step, consolidates and evaluates it.

    Returns how it ended if all went well. On an error the rank reports the reason, notifies its peers, and exits from
    here with the exit code of that end. claim: rank 0's; the other ranks' are provisional until the ranks have met.
    requeue: see Watchdog.
    """
    from bigchem.train.collectives import on_rank0
    from bigchem.train.health.watchdog import collective_timeout

    config = toml.load(RunConfig, run_dir / "config.toml")
    flight_recorder.arm(run_dir)
    requeue = requeue or (lambda lead: EXIT_REQUEUE)
    begun = False
    try:
        if device is None:
            key = rendezvous_key(run_dir, place)
            device = start(place, collective_timeout(config.health.hang_s), config.health.rendezvous_s, key)
        claim = on_rank0(lambda: claim)
        begun = True  # from here on state.json describes this attempt
        if (others := peers.current()) is not None:
            if place.rank == 0:
                others.on_notice = partial(early_exit.record_notice, claim)
            others.on_loss = lambda cause: early_exit.exit_lost_rank(claim, place.rank, cause, requeue, begun=True)
        how = _run(config, device, place, claim, requeue)
    except AbsentRankError as error:
        early_exit.exit_absent_rank(claim, place.rank, error, requeue)
    except KeyboardInterrupt:
        early_exit.exit_interrupted(claim, place.rank)
    except BaseException as error:
        if not isinstance(error, UserError) and (cause := connection_lost(error)):
            early_exit.exit_lost_rank(claim, place.rank, cause, requeue, begun=begun)
        early_exit.exit_on_error(error, early_exit.record_failure(claim, place.rank, error))
    if place.rank == 0:
        if how in (End.PREEMPTED, End.TIME_LIMIT) and place.launcher == "slurm" and is_cancelled(os.environ):
            try_write("state.json", lambda: claim.end(Writer.RANK_0, End.STOPPED, "cancelled"))
        if claim.holds():
            history.close(run_dir)
        if not ENDS[how].again:
            owner.release(claim)
        notify.send_from_rank(run_dir)
    finish()
    return how


def _was_cancelled(run_dir: Path, env: Mapping[str, str]) -> bool:
    """Whether a user has cancelled this very job: Slurm may still restart it after a node failure. Within one start, as
    in an interactive allocation, the user may start the run again."""
    current = ownership.read(run_dir)
    if current is None or not owner.is_jobs(current, env) or owner.cancelled_by(run_dir, current) is None:
        return False
    return current.executor == "slurm" or int(env.get("SLURM_RESTART_COUNT", "0")) > current.restart


def _run(config: RunConfig, device: torch.device, place: Rendezvous, claim: Claim, requeue: Requeue) -> End:
    from bigchem.ds_config import ds_config_for, offloads
    from bigchem.launch.doctor.measure import before_step_1
    from bigchem.sharing.lineage import record_base
    from bigchem.sharing.provenance import base_at
    from bigchem.train.checkpoint.store import latest
    from bigchem.train.loop import train

    before_step_1(place, device, config.run_dir)
    if offloads(ds_config_for(config, place.world_size)):
        load_cpu_adam()
    if place.rank == 0 and config.model.init_from is not None and latest(config.run_dir / "checkpoints") is None:
        record_base(config.run_dir, base_at(config.model.init_from))
    outcome = train(config, device, requeue, claim)
    if not outcome.finished or not config.evaluate.at_end:
        return outcome.end
    consolidate_and_evaluate(config, place, claim)
    return End.FINISHED


def consolidate_and_evaluate(config: RunConfig, place: Rendezvous, claim: Claim) -> None:
    """The work after a run's last step. Every rank calls this."""
    import torch.distributed as dist

    from bigchem.evaluate.run import evaluate
    from bigchem.evaluate.subject import run_subject
    from bigchem.export import export
    from bigchem.sharing.card import after_evaluation
    from bigchem.train.collectives import on_rank0

    model_dir = config.run_dir / "model"

    def publish() -> None:
        claim.check()
        export(config.run_dir, model_dir, overwrite=True)

    on_rank0(publish)
    on_rank0(claim.check)
    found = evaluate(run_subject(config, model_dir), config.evaluate, rank=place.rank, world_size=place.world_size)
    dist.barrier()
    if place.rank == 0:
        if (left := after_evaluation(model_dir, found)) is not None:
            print(left, flush=True)
        claim.end(Writer.RANK_0, End.FINISHED)


def log_to(run_dir: Path, rank: int, *, tee: bool) -> None:
    """Redirects this process's output to logs/rank<N>.log for good; with tee, to the terminal as well."""
    path = run_dir / "logs" / f"rank{rank}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = cast(TextIO, Log(path))
    except OSError as error:  # a full disk: the output is not redirected
        print(f"cannot write {path}: {error.strerror}", file=sys.stderr, flush=True)
        return
    sys.stdout = Tee(log, sys.stdout) if tee else log
    sys.stderr = Tee(log, sys.stderr) if tee else log
