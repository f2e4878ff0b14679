"""What runs inside a job: train, consolidate, evaluate; and requeue when told to stop early."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from bigchem import strict
from bigchem.config import RunConfig
from bigchem.errors import UserError
from bigchem.launch.extensions import load_cpu_adam, load_shared_memory_op
from bigchem.launch.rendezvous import Rendezvous, rendezvous

if TYPE_CHECKING:
    import torch

COLLECTIVE_TIMEOUT = timedelta(hours=1)
"""The others wait while rank 0 hashes a checkpoint or exports a model: at 11B longer than DeepSpeed's ten minutes."""
PERSONS_SIGNALS = ("SIGINT", "SIGTERM")
"""Ctrl-C and scancel: the job is not requeued. A preempting Slurm requeues after its SIGTERM by itself."""


@dataclass(frozen=True)
class Job:
    """The callable that submitit pickles: only a path, so that what runs is what the run folder says."""

    run_dir: str
    env: tuple[tuple[str, str], ...] = ()
    max_requeues: int = 20

    def __call__(self) -> str:
        """Runs the job in this process; its final state."""
        os.environ.update(self.env)
        place = rendezvous(os.environ, os.getpid())
        log_to(Path(self.run_dir), place.rank, tee=False)
        try:
            state = run(Path(self.run_dir), place)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)  # into the rank's log
            raise
        if state == "preempted" and place.rank == 0:
            self._requeue(place)
        return state

    def _requeue(self, place: Rendezvous) -> None:
        """Asks submitit's plugin to start the job again: scontrol requeue on Slurm, another round locally."""
        if place.launcher not in ("slurm", "submitit local"):
            return
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if restarts >= self.max_requeues:
            print(f"requeued {restarts} times already (max_requeues): submit the run again to go on", file=sys.stderr)
            return
        import submitit

        submitit.JobEnvironment()._requeue(self.max_requeues - restarts)
        sys.exit(-1)  # no result: the requeued job will give one

    def checkpoint(self) -> object:
        """submitit's hook for a signal outside of training: run again from the last published checkpoint."""
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

    place = rendezvous(os.environ, os.getpid())
    config = absolute(config)
    before = run_status(config.run_dir)
    if before.state == "finished" and before.step == config.train.steps and not changes(config):
        print(f"{config.run_dir}: already finished: nothing to do")
        return "finished"
    preflight(config, place.world_size)
    device = start(place)

    def make_folder() -> None:
        claim(config, "here", str(os.getpid()))
        prepare(config)

    on_rank0(make_folder)
    log_to(config.run_dir, place.rank, tee=place.rank == 0)
    state = run(config.run_dir, place, device)
    if place.rank == 0:
        print(f"{config.run_dir}: {state}" + (", see results/table.md" if state == "finished" else ""))
    return state


def run(run_dir: Path, place: Rendezvous, device: torch.device | None = None) -> str:
    """Trains the run of a run folder and, when its last step is done, consolidates and evaluates it.

    Returns how it ended: finished, trained (not evaluated, as configured), stopped by a person or preempted.
    """
    from bigchem.train.state import read_state, write_state

    config = strict.load(RunConfig, run_dir / "config.toml")
    try:
        state = _run(config, device or start(place), place)
    except BaseException as error:
        before = read_state(run_dir)
        if before["state"] != "failed":  # the first rank to fail knows why; its peers only lose their connections
            write_state(run_dir, "failed", **_progress(before), reason=_reason(error), rank=place.rank)
        if not isinstance(error, UserError):
            traceback.print_exc()
        else:
            finish()  # a process that exits with its group up may abort, with another exit code than 2
        raise
    finish()
    return state


def _run(config: RunConfig, device: torch.device, place: Rendezvous) -> str:
    import torch.distributed as dist

    from bigchem.evaluate.run import evaluate, run_subject
    from bigchem.export import export
    from bigchem.train.ds_config import ds_config_for, offloads
    from bigchem.train.loop import train
    from bigchem.train.ranks import on_rank0
    from bigchem.train.state import read_state, write_state

    if offloads(ds_config_for(config, place.world_size)):
        load_cpu_adam()
    outcome = train(config, device)
    if not outcome.finished:
        return "stopped" if outcome.signal in PERSONS_SIGNALS else "preempted"
    if not config.evaluate.at_end:
        return "trained"
    model_dir = config.run_dir / "model"
    on_rank0(lambda: export(config.run_dir, model_dir, overwrite=True))
    evaluate(run_subject(config, model_dir), config.evaluate, rank=place.rank, world_size=place.world_size)
    dist.barrier()
    if place.rank == 0:
        write_state(config.run_dir, "finished", **_progress(read_state(config.run_dir)))
    return "finished"


def start(place: Rendezvous) -> torch.device:
    """Brings the process group up; the device of this rank."""
    os.environ.update(place.variables())
    import torch

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        threads = os.environ.get("OMP_NUM_THREADS")
        torch.set_num_threads(int(threads) if threads else max(1, (os.cpu_count() or 1) // place.world_size))
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")  # of DeepSpeed's own calls
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank)
        deepspeed.init_distributed("nccl", timeout=COLLECTIVE_TIMEOUT, verbose=False)
        return torch.device("cuda", place.local_rank)
    load_shared_memory_op()
    deepspeed.init_distributed("gloo", timeout=COLLECTIVE_TIMEOUT, verbose=False)
    return torch.device("cpu")


def finish() -> None:
    """Takes the process group down."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def log_to(run_dir: Path, rank: int, *, tee: bool) -> None:
    """Sends this process's output to logs/rank<N>.log for the rest of its life; with tee, to the terminal as well."""
    path = run_dir / "logs" / f"rank{rank}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.open("a", encoding="utf-8", buffering=1)
    sys.stdout = _Tee(log, sys.stdout) if tee else log
    sys.stderr = _Tee(log, sys.stderr) if tee else log


class _Tee(io.TextIOBase):
    """Writes to several text streams."""

    def __init__(self, *streams: TextIO) -> None:
        self._streams = streams

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


def _progress(state: dict[str, object]) -> dict[str, object]:
    return {key: state[key] for key in ("step", "steps") if key in state}


def _reason(error: BaseException) -> str:
    return str(error).replace("\n", "; ") if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
