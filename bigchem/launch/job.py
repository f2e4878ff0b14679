"""What runs inside a job: train, consolidate, evaluate; and requeue when told to stop early."""

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

from bigchem import strict
from bigchem.config import RunConfig
from bigchem.errors import UserError
from bigchem.launch import ends, history, owner
from bigchem.launch.after import is_cancelled
from bigchem.launch.extensions import load_cpu_adam
from bigchem.launch.group import finish, start
from bigchem.launch.rendezvous import Rendezvous, rendezvous
from bigchem.launch.roll import AbsentError
from bigchem.launch.scratch import use_scratch
from bigchem.launch.secret import rendezvous_key
from bigchem.launch.snapshot import check_own
from bigchem.progress import Tee
from bigchem.train import notify, ownership, peers, recorder
from bigchem.train.clock import LIMIT_SIGNAL
from bigchem.train.leave import leave, peer_lost
from bigchem.train.lifecycle import ENDS, EXIT_AGAIN, End, State, Writer, exit_code
from bigchem.train.ownership import Claim
from bigchem.train.rows import Log, goes_on

if TYPE_CHECKING:
    import torch

    from bigchem.train.watchdog import Requeue

SUBMITTER_S = 600.0
"""That a job waits for the process that submits it, and that holds the run's lock meanwhile: a sweep submits many."""
EARLY_S = 120.0
"""By which Slurm may send the signal before a time limit sooner than it was asked to: it looks once a minute."""


@dataclass(frozen=True)
class Job:
    """The callable that submitit pickles: only a path, so that what runs is what the run folder says.

    time_s: that it may take. signal_delay_s: before that, Slurm sends its signal. scratch: see ClusterProfile.
    """

    run_dir: str
    env: tuple[tuple[str, str], ...] = ()
    max_requeues: int = 20
    time_s: float | None = None
    signal_delay_s: float = 0.0
    scratch: str | None = None

    def __call__(self) -> str:
        """Runs the job in this process; how it ended."""
        os.environ.update(self.env)
        run_dir = Path(self.run_dir)
        try:
            if self.scratch is not None:
                use_scratch(self.scratch)
            place = rendezvous(os.environ, os.getpid())
            if place.rank == 0:
                check_own()
        except UserError as error:
            ends.failed(owner.of_job(run_dir, os.environ), int(os.environ.get("SLURM_PROCID", "0")), error)
            raise
        self._say_when_it_ends(place)
        log_to(run_dir, place.rank, tee=False)
        if place.launcher == "slurm":
            owner.await_submitter(run_dir, os.environ, SUBMITTER_S)
            if _was_cancelled(run_dir, os.environ):
                if place.rank == 0:
                    owner.of_job(run_dir, os.environ).end(Writer.RANK_0, End.STOPPED, "cancelled")
                    leave(exit_code(End.STOPPED))
                return End.STOPPED
            ends.make_way_unless_training(run_dir, place.rank)

        def requeue(lead: bool) -> int:
            try:
                self._requeue(place)
            except SystemExit as told:
                return int(told.code or 0) & 0xFF
            return EXIT_AGAIN

        provisional = owner.of_job(run_dir, os.environ)
        with ends.together(lambda error: ends.failed(provisional, place.rank, error)):
            claim = claimed(run_dir, place) if place.rank == 0 else provisional
            how = run(run_dir, place, claim, requeue=requeue)
        # One rank gives the job its exit code. srun ends the others then: they have nothing left to do.
        if place.rank == 0 and exit_code(how):
            leave(requeue(True) if ENDS[how].again else exit_code(how))
        return how

    def _say_when_it_ends(self, place: Rendezvous) -> None:
        """For the clock, and to tell a time limit from a preemption; on Slurm the signal comes before the end."""
        if self.time_s is None:
            return
        if place.launcher == "slurm":
            os.environ[LIMIT_SIGNAL] = str(time.time() + self.time_s - self.signal_delay_s - EARLY_S)
        else:
            os.environ["BIGCHEM_JOB_END"] = str(time.time() + self.time_s)

    def _requeue(self, place: Rendezvous) -> None:
        """Asks submitit's local executor for another round, and exits: the exit code says so. On Slurm that is done
        when all ranks have ended: see after.py."""
        if place.launcher == "submitit local":
            import submitit

            submitit.JobEnvironment()._requeue(self.max_requeues)
            sys.exit(-1)

    def checkpoint(self) -> object:
        """submitit's hook for a signal outside of training, where it is not on Slurm: run again from the last published
        checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def run_here(config: RunConfig) -> End:
    """Runs a job in this process, without a launcher or under torchrun or srun; how it ended.

    Rank 0 makes the run folder; the others learn from it whether that went well, and read the same configuration.
    """
    from bigchem.launch.runfolder import absolute, changes, preflight, prepare
    from bigchem.launch.status import run_status
    from bigchem.train.ranks import on_rank0
    from bigchem.train.watchdog import collective_timeout

    place = rendezvous(os.environ, os.getpid())
    config = absolute(config)
    before = run_status(config.run_dir)
    if before.is_done(config.train.steps) and not changes(config):
        print(f"{config.run_dir}: already finished: nothing to do")
        return End.FINISHED
    if "SLURM_JOB_ID" in os.environ and _was_cancelled(config.run_dir, os.environ):
        print(f"{config.run_dir}: this job was cancelled before Slurm started it again: nothing to do")
        return End.STOPPED
    preflight(config, place.world_size, ask_deepspeed=False)  # the engine will
    recorder.arm(config.run_dir)
    try:
        key = rendezvous_key(config.run_dir, place)
        device = start(place, collective_timeout(config.health.hang_s), config.health.rendezvous_s, key)
    except AbsentError as error:
        print(f"error: {error}", file=sys.stderr)
        leave(EXIT_AGAIN)

    def take() -> Claim:
        return claimed(config.run_dir, place, lambda: prepare(config), make=True)

    with ends.together():
        claim = on_rank0(take)
        log_to(config.run_dir, place.rank, tee=place.rank == 0)
        how = run(config.run_dir, place, claim, device)
    if place.rank == 0:
        print(f"{config.run_dir}: {how}" + (", see results/table.md" if how is End.FINISHED else ""))
    return how


def claimed(
    run_dir: Path, place: Rendezvous, prepare: Callable[[], object] = lambda: None, *, make: bool = False
) -> Claim:
    """Makes this attempt the run's owner and begins it; rank 0 calls it. prepare: what to do with the folder before
    anybody else may. make: the folder, if it is not there."""
    job = owner.job_id(os.environ) if "SLURM_JOB_ID" in os.environ else str(os.getpid())
    nodes = os.environ.get("SLURM_JOB_NODELIST", platform.node())
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    with owner.alone(run_dir, "starts", timeout_s=SUBMITTER_S, make=make) as held:
        claim = owner.claim(run_dir, owner.of_this_process(os.environ, place.world_size), held=held)
        prepare()
        history.begin(run_dir, job, restart, nodes, place.world_size)  # while state.json has the last attempt's word
        claim.move(Writer.RANK_0, State.PREPARED)
    return claim


def run(
    run_dir: Path,
    place: Rendezvous,
    claim: Claim,
    device: torch.device | None = None,
    requeue: Requeue | None = None,
) -> End:
    """Trains the run of a run folder and, when its last step is done, consolidates and evaluates it.

    Returns how it ended, where all went well. On any error the rank says why, tells its peers, and leaves from here
    with the exit code of its end. claim: rank 0's; what the others have is only good until they have met. requeue: see
    Watchdog.
    """
    from bigchem.train.ranks import on_rank0
    from bigchem.train.watchdog import collective_timeout

    config = strict.load(RunConfig, run_dir / "config.toml")
    recorder.arm(run_dir)
    requeue = requeue or (lambda lead: EXIT_AGAIN)
    begun = False
    try:
        if device is None:
            key = rendezvous_key(run_dir, place)
            device = start(place, collective_timeout(config.health.hang_s), config.health.rendezvous_s, key)
        claim = on_rank0(lambda: claim)
        begun = True  # what state.json says from here on was said in this attempt
        if (others := peers.current()) is not None:
            if place.rank == 0:
                others.on_notice = partial(ends.heard, claim)
            others.on_loss = lambda cause: ends.bereft(claim, place.rank, cause, requeue, begun=True)
        how = _run(config, device, place, claim, requeue)
    except AbsentError as error:
        ends.unmet(claim, place.rank, error, requeue)
    except KeyboardInterrupt:
        ends.interrupted(claim, place.rank)
    except BaseException as error:
        if not isinstance(error, UserError) and (words := peer_lost(error)):
            ends.bereft(claim, place.rank, words, requeue, begun=begun)
        ends.depart(error, ends.failed(claim, place.rank, error))
    if place.rank == 0:
        if how in (End.PREEMPTED, End.TIME_LIMIT) and place.launcher == "slurm" and is_cancelled(os.environ):
            goes_on("state.json", lambda: claim.end(Writer.RANK_0, End.STOPPED, "cancelled"))
        if claim.holds():
            history.close(run_dir)
        if not ENDS[how].again:
            owner.release(claim)
        notify.tell_from_rank(run_dir)
    finish()
    return how


def _was_cancelled(run_dir: Path, env: Mapping[str, str]) -> bool:
    """Whether a person has cancelled this very job: Slurm may start it again all the same, after a node failure. Within
    one start, as in an interactive allocation, a person may start the run again."""
    has_run = ownership.read(run_dir)
    if has_run is None or not owner.is_jobs(has_run, env) or owner.cancelled_by(run_dir, has_run) is None:
        return False
    return has_run.executor == "slurm" or int(env.get("SLURM_RESTART_COUNT", "0")) > has_run.restart


def _run(config: RunConfig, device: torch.device, place: Rendezvous, claim: Claim, requeue: Requeue) -> End:
    from bigchem.ds_config import ds_config_for, offloads
    from bigchem.launch.examination import before_step_1
    from bigchem.train.loop import train

    before_step_1(place, device, config.run_dir)
    if offloads(ds_config_for(config, place.world_size)):
        load_cpu_adam()
    outcome = train(config, device, requeue, claim)
    if not outcome.finished or not config.evaluate.at_end:
        return outcome.end
    consolidate_and_evaluate(config, place, claim)
    return End.FINISHED


def consolidate_and_evaluate(config: RunConfig, place: Rendezvous, claim: Claim) -> None:
    """What comes after a run's last step. Every rank calls this."""
    import torch.distributed as dist

    from bigchem.evaluate.run import evaluate, run_subject
    from bigchem.export import export
    from bigchem.train.ranks import on_rank0

    model_dir = config.run_dir / "model"

    def publish() -> None:
        claim.check()
        export(config.run_dir, model_dir, overwrite=True)

    on_rank0(publish)
    on_rank0(claim.check)
    evaluate(run_subject(config, model_dir), config.evaluate, rank=place.rank, world_size=place.world_size)
    dist.barrier()
    if place.rank == 0:
        claim.end(Writer.RANK_0, End.FINISHED)


def log_to(run_dir: Path, rank: int, *, tee: bool) -> None:
    """Sends this process's output to logs/rank<N>.log for the rest of its life; with tee, to the terminal as well."""
    path = run_dir / "logs" / f"rank{rank}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        log = cast(TextIO, Log(path))
    except OSError as error:  # a full disk: what is said then goes where it went
        print(f"cannot write {path}: {error.strerror}", file=sys.stderr, flush=True)
        return
    sys.stdout = Tee(log, sys.stdout) if tee else log
    sys.stderr = Tee(log, sys.stderr) if tee else log
