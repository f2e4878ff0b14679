"""What runs inside a job: train, consolidate, evaluate; and requeue when told to stop early."""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO, cast

from bigchem import strict
from bigchem.config import RunConfig
from bigchem.errors import UserError
from bigchem.launch import after, history
from bigchem.launch.extensions import load_cpu_adam
from bigchem.launch.group import finish, start
from bigchem.launch.rendezvous import Rendezvous, rendezvous
from bigchem.launch.roll import AbsentError
from bigchem.launch.scratch import use_scratch
from bigchem.launch.secret import rendezvous_key
from bigchem.launch.status import read_submission
from bigchem.progress import Tee
from bigchem.train.checkpoint import latest
from bigchem.train.leave import EXIT_REQUEUE, EXIT_STOPPED, LEFT_WORD, code_after, leave, peer_lost
from bigchem.train.rows import Log
from bigchem.train.state import progress, read_state, write_state

if TYPE_CHECKING:
    import torch

    from bigchem.train.watchdog import Requeue

WORD_S = 1.0
"""That a rank which lost another waits for its word: the one that failed writes why before it goes."""


@dataclass(frozen=True)
class Job:
    """The callable that submitit pickles: only a path, so that what runs is what the run folder says."""

    run_dir: str
    env: tuple[tuple[str, str], ...] = ()
    max_requeues: int = 20
    time_s: float | None = None
    scratch: str | None = None

    def __call__(self) -> str:
        """Runs the job in this process; its final state. time_s: that it may take, where Slurm does not say. scratch:
        see ClusterProfile."""
        os.environ.update(self.env)
        if self.time_s is not None:
            os.environ["BIGCHEM_JOB_END"] = str(time.time() + self.time_s)
        run_dir = Path(self.run_dir)
        try:
            if self.scratch is not None:
                use_scratch(self.scratch)
            place = rendezvous(os.environ, os.getpid())
        except UserError as error:
            _failed(run_dir, int(os.environ.get("SLURM_PROCID", "0")), _reason(error), code=2)
            raise
        log_to(run_dir, place.rank, tee=False)
        if place.launcher == "slurm" and _was_cancelled(run_dir):
            if place.rank == 0:
                write_state(run_dir, "stopped", **progress(read_state(run_dir)), reason="cancelled")
            return "stopped"
        if place.launcher == "slurm":
            make_way_unless_training(run_dir, place.rank)

        def requeue(lead: bool) -> int:
            try:
                self._requeue(place)
            except SystemExit as told:
                return int(told.code or 0) & 0xFF
            return EXIT_REQUEUE

        try:
            state = run(run_dir, place, requeue=requeue)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)  # into the rank's log
            raise
        if state == "preempted" and place.rank == 0:
            leave(requeue(True))  # no result: the job that is started again will give one
        return state

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


def run_here(config: RunConfig) -> str:
    """Runs a job in this process, without a launcher or under torchrun or srun; its final state.

    Rank 0 makes the run folder; the others learn from it whether that went well, and read the same configuration.
    """
    from bigchem.launch.runfolder import absolute, changes, preflight, prepare
    from bigchem.launch.status import run_status
    from bigchem.launch.submit import claim
    from bigchem.train.ranks import on_rank0
    from bigchem.train.watchdog import collective_timeout

    place = rendezvous(os.environ, os.getpid())
    config = absolute(config)
    before = run_status(config.run_dir)
    if before.is_done(config.train.steps) and not changes(config):
        print(f"{config.run_dir}: already finished: nothing to do")
        return "finished"
    preflight(config, place.world_size)
    try:
        key = rendezvous_key(config.run_dir, place)
        device = start(place, collective_timeout(config.health.hang_s), config.health.rendezvous_s, key)
    except AbsentError as error:
        print(f"error: {error}", file=sys.stderr)
        leave(EXIT_REQUEUE)

    def make_folder() -> None:
        slurm_job = after.job_id(os.environ) if "SLURM_JOB_ID" in os.environ else None
        claim(config, "here", str(os.getpid()), slurm_job)
        prepare(config)

    on_rank0(make_folder)
    log_to(config.run_dir, place.rank, tee=place.rank == 0)
    try:
        state = run(config.run_dir, place, device)
    except UserError:
        raise
    except Exception as error:  # its traceback is in the log; a process that goes down slowly may abort or wait
        told = f"rank {place.rank}: {_reason(error)}; see {config.run_dir / 'logs' / f'rank{place.rank}.log'}"
        print(told, file=sys.__stderr__, flush=True)
        leave(1)
    if place.rank == 0:
        print(f"{config.run_dir}: {state}" + (", see results/table.md" if state == "finished" else ""))
    return state


def run(run_dir: Path, place: Rendezvous, device: torch.device | None = None, requeue: Requeue | None = None) -> str:
    """Trains the run of a run folder and, when its last step is done, consolidates and evaluates it.

    Returns how it ended: finished, trained (not evaluated, as configured), stopped by a person or preempted. A rank
    that loses another one, and one that a person interrupts, leaves from here with its exit code.
    requeue: see Watchdog.
    """
    from bigchem.train.ranks import on_rank0
    from bigchem.train.watchdog import collective_timeout

    config = strict.load(RunConfig, run_dir / "config.toml")
    requeue = requeue or (lambda lead: EXIT_REQUEUE)
    begun = False
    if place.rank == 0:
        job = after.job_id(os.environ) if place.launcher == "slurm" else str(os.getpid())
        nodes = os.environ.get("SLURM_JOB_NODELIST", platform.node())
        restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        history.begin(run_dir, job, restart, nodes, place.world_size)
    try:
        if device is None:
            key = rendezvous_key(run_dir, place)
            device = start(place, collective_timeout(config.health.hang_s), config.health.rendezvous_s, key)
        on_rank0(lambda: write_state(run_dir, "prepared", **progress(read_state(run_dir))))
        begun = True  # what state.json says from here on was said in this attempt
        state = _run(config, device, place, requeue)
    except AbsentError as error:
        _unmet(run_dir, place.rank, error, requeue)
    except UserError as error:
        _failed(run_dir, place.rank, _reason(error), code=2)
        finish()  # a process that exits with its group up may abort, with another exit code than 2
        raise
    except KeyboardInterrupt:
        _interrupted(run_dir, place.rank)
    except BaseException as error:
        if words := peer_lost(error):
            _bereft(run_dir, place.rank, words, requeue, begun=begun)
        _failed(run_dir, place.rank, _reason(error))
        traceback.print_exc()
        raise
    if place.rank == 0:
        if state == "preempted" and place.launcher == "slurm" and after.is_cancelled(os.environ):
            write_state(run_dir, "stopped", **progress(read_state(run_dir)), reason="cancelled")
        history.close(run_dir)
    finish()
    return state


def _was_cancelled(run_dir: Path) -> bool:
    """Whether a person has cancelled this very job: Slurm may start it again all the same, after a node failure."""
    submission = read_submission(run_dir)
    return "cancelled" in submission and submission.get("job") == after.job_id(os.environ)


def make_way_unless_training(run_dir: Path, rank: int) -> None:
    """What a signal does before and after training, which has handlers of its own: the job ends at once, and is started
    again. Only rank 0 does so: the others end with it."""

    def make_way(number: int, frame: object) -> None:
        if rank == 0:
            before, name = read_state(run_dir), signal.Signals(number).name
            if before["state"] in ("failed", "finished"):  # srun ends all ranks when one has failed, and said why
                leave(code_after(before, lambda lead: EXIT_REQUEUE))
            write_state(run_dir, "stopped", **progress(before), reason=f"{name}: to be started again", again=True)
            leave(EXIT_REQUEUE)

    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, make_way)


def _failed(run_dir: Path, rank: int, reason: str, **more: object) -> None:
    """Records a failure, unless another rank has: the first to fail knows why, its peers only lose connections."""
    before = read_state(run_dir)
    if before["state"] != "failed":
        write_state(run_dir, "failed", **progress(before), reason=reason, rank=rank, **more)


def _interrupted(run_dir: Path, rank: int) -> NoReturn:
    """Leaves at once for a person: nothing is saved."""
    before = read_state(run_dir)
    if rank == 0:
        write_state(run_dir, "stopped", **progress(before))
        newest = latest(run_dir / "checkpoints")
        print(f"interrupted: nothing saved, the last checkpoint is {'none' if newest is None else newest.name}")
    leave(EXIT_STOPPED)


def _unmet(run_dir: Path, rank: int, error: AbsentError, requeue: Requeue) -> NoReturn:
    """Leaves, for the job to be started again, as not all ranks have come."""
    print(f"{error}: the run ends, to be started again", file=sys.stderr)
    time.sleep(WORD_S * (1 + min(rank, 9) / 10) if rank else 0)  # rank 0 first, if it is there; one tells the launcher
    if error.lead:
        write_state(run_dir, "failed", **progress(read_state(run_dir)), reason=str(error), rank=rank, lost=True)
    leave(requeue(error.lead))


def _bereft(run_dir: Path, rank: int, words: str, requeue: Requeue, *, begun: bool) -> NoReturn:
    """Leaves, for the job to be started again, as another rank is gone; unless that one has left word why. begun: this
    attempt's state is in state.json; else it is the word of an earlier one."""
    from bigchem.train import events

    time.sleep(WORD_S * (1 + min(rank, 9) / 10))
    before = read_state(run_dir)
    told = f"rank {rank} lost its connection to another rank after step {before.get('step', 0)} ({words})"
    if begun and before["state"] in LEFT_WORD:
        print(f"{told}: the run has {before['state']}: {before.get('reason', 'by a person')}", file=sys.stderr)
        leave(code_after(before, requeue))
    reason = f"{told}, which is gone without a word"
    write_state(run_dir, "failed", **progress(before), reason=reason, rank=rank, lost=True)
    print(f"{reason}: the run ends, to be started again", file=sys.stderr)
    events.record(run_dir, int(before.get("step", 0)), "lost rank", "the run ends, to be started again", told)
    leave(requeue(True))


def _run(config: RunConfig, device: torch.device, place: Rendezvous, requeue: Requeue) -> str:
    from bigchem.launch.examination import before_step_1
    from bigchem.train.ds_config import ds_config_for, offloads
    from bigchem.train.loop import train

    before_step_1(place, device, config.run_dir)
    if offloads(ds_config_for(config, place.world_size)):
        load_cpu_adam()
    outcome = train(config, device, requeue)
    if not outcome.finished:
        return "stopped" if outcome.by_person else "preempted"
    if not config.evaluate.at_end:
        return "trained"
    consolidate_and_evaluate(config, place)
    return "finished"


def consolidate_and_evaluate(config: RunConfig, place: Rendezvous) -> None:
    """What comes after a run's last step. Every rank calls this."""
    import torch.distributed as dist

    from bigchem.evaluate.run import evaluate, run_subject
    from bigchem.export import export
    from bigchem.train.ranks import on_rank0

    model_dir = config.run_dir / "model"
    on_rank0(lambda: export(config.run_dir, model_dir, overwrite=True))
    evaluate(run_subject(config, model_dir), config.evaluate, rank=place.rank, world_size=place.world_size)
    dist.barrier()
    if place.rank == 0:
        write_state(config.run_dir, "finished", **progress(read_state(config.run_dir)))


def log_to(run_dir: Path, rank: int, *, tee: bool) -> None:
    """Sends this process's output to logs/rank<N>.log for the rest of its life; with tee, to the terminal as well."""
    path = run_dir / "logs" / f"rank{rank}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    log = cast(TextIO, Log(path))
    sys.stdout = Tee(log, sys.stdout) if tee else log
    sys.stderr = Tee(log, sys.stderr) if tee else log


def _reason(error: BaseException) -> str:
    return str(error).replace("\n", "; ") if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
