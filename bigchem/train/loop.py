"""The training loop, from a configuration to a published checkpoint of the last step. Reads from top to bottom."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from bigchem.base.errors import UserError
from bigchem.base.printable import number_of
from bigchem.config import NotifyConfig, RunConfig
from bigchem.data.loader import LoadedStep, Loader
from bigchem.data.step_plan import Cost, flops_cost, open_data, with_mixture
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.model import presets
from bigchem.model.flops import training_flops
from bigchem.run.lifecycle import EXIT_REQUEUE, End, State, Writer
from bigchem.run.notify import StallNotifier
from bigchem.run.ownership import Claim, OwnershipWatch
from bigchem.run.state import progress, read_state, write_state
from bigchem.train import schedule, worst_case
from bigchem.train.checkpoint.best import Best
from bigchem.train.checkpoint.probe import Probe
from bigchem.train.collectives import gathered, on_rank0, say
from bigchem.train.engine import Engine, StepResult
from bigchem.train.health.device_progress import device_progress_of
from bigchem.train.health.events import keys_of, report_end, skipped_step
from bigchem.train.health.signals import StopFlag, StopRequest
from bigchem.train.health.step_guard import BadStep, RollBacks, StepGuard
from bigchem.train.health.stragglers import StragglerMonitor
from bigchem.train.health.time_limit import TimeLimit, end_moves, is_limit_signal, job_end, validations
from bigchem.train.health.watchdog import Requeue, Watchdog
from bigchem.train.logging.ledger import Ledger
from bigchem.train.logging.profiler import Profiler
from bigchem.train.logging.tracker import Tracker
from bigchem.train.model_factory import build, peak_flops, record, with_local_weights
from bigchem.train.saving import Saver, SaveResult, TrainingPosition
from bigchem.train.validation import Validation


@dataclass(frozen=True)
class Outcome:
    """How training ended: `finished`, by reaching the last step or by early stopping, or stopped after a checkpoint.

    steps: those in the newest checkpoint. early: why it finished before the last step.
    """

    end: End
    steps: int
    early: str | None = None

    @property
    def finished(self) -> bool:
        """Whether no training is left to do."""
        return self.end is End.TRAINED


@dataclass(frozen=True)
class Run:
    """The parts of a run that stay when it rolls back to a checkpoint."""

    config: RunConfig
    shape: presets.Shape
    data: Data
    cost: Cost
    loader: Loader
    engine: Engine
    saver: Saver
    flag: StopFlag
    watchdog: Watchdog
    time_limit: TimeLimit
    roll_backs: RollBacks
    claim: Claim
    ownership: OwnershipWatch

    def stop_request(self) -> StopRequest:
        """Why this rank wants to stop: a signal or, on rank 0 only, the time limit or another attempt that owns the
        run."""
        if self.engine.rank == 0 and self.ownership.lost(time.monotonic()):
            return StopRequest.DISOWNED
        if self.flag.request is StopRequest.NONE and self.engine.rank == 0 and self.late():
            return StopRequest.PREEMPTED
        return self.flag.request

    def late(self) -> str | None:
        """See TimeLimit.late."""
        return self.time_limit.late(time.time(), self.watchdog.clock.stopped_s)


def train(
    config: RunConfig,
    device: torch.device,
    requeue: Requeue = lambda lead: EXIT_REQUEUE,
    claim: Claim | None = None,
) -> Outcome:
    """Trains until the last step or a stop request. Collective; needs an initialized process group.

    Resumes from the newest published checkpoint in the run folder, if any. requeue: see Watchdog. claim: on the run;
    None if no launcher made one.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    if claim is None and rank == 0:
        write_state(config.run_dir, State.PREPARED, **progress(read_state(config.run_dir)))
    claim = claim or Claim(config.run_dir)
    with ExitStack() as stack:
        flag = stack.enter_context(StopFlag(announce=rank == 0))
        unwatched = stack.enter_context(ExitStack())  # closed after the watchdog: the last copy may take hours
        hang_s, beats = config.health.hang_s, device_progress_of(device)
        on_tick = StallNotifier(config.run_dir, config.notify if rank == 0 else NotifyConfig()).check
        watchdog = stack.enter_context(
            Watchdog(config.run_dir, rank, world_size, hang_s, requeue, beats, claim, on_tick)
        )
        time_limit = TimeLimit(job_end(os.environ, time.time()), time.time(), moves=end_moves(os.environ))
        watchdog.beat("download")
        config = with_local_weights(config)
        watchdog.beat("prepare")
        data = open_data(config.data)
        config = with_mixture(config, data)
        cost = flops_cost(config.model, Tokenizer.load(data.tokenizer_dir).vocab_size)
        loader = Loader(data, config.data, config.seed, rank, world_size, cost)
        same_on_all_ranks(data.index.fingerprint, config.data.path)
        model = build(config, data, device)
        engine = Engine(model, config, device, loader.names)
        if rank == 0:
            record(config, model, device)
        hf_config = presets.to_hf_config(model.shape, config.model.dropout)
        saver = Saver(config, engine, Probe.of(loader), data.index.fingerprint, hf_config, claim)
        unwatched.callback(saver.close)
        size = f"{presets.num_parameters(model.shape):,} parameters"
        say(f"{size}, ZeRO-{engine.zero_stage}, {number_of('rank', world_size)}, {device}")
        say(f"data {data.index.fingerprint}: {loader.plan.describe()}")
        if advice := loader.plan.advice(data):
            say(advice)
        worst_case.check(engine, config, loader.plan, model.shape)
        shape, owner = model.shape, OwnershipWatch(claim)
        run = Run(
            config, shape, data, cost, loader, engine, saver, flag, watchdog, time_limit, RollBacks(), claim, owner
        )
        while (outcome := continue_training(run)) is None:
            pass
    return outcome


def continue_training(run: Run) -> Outcome | None:
    """Trains from the newest checkpoint. None: too many bad steps in a row, roll back to it and try again."""
    run.watchdog.beat("resume")
    done, state = run.saver.resume()
    say("training from " + (f"step {done.steps}, example {done.examples}" if done.steps else "the start"))
    with ExitStack() as stack:
        training = begin(run, done, state, stack)
        stream = run.loader.steps(done.examples, run.engine.plan)
        stack.callback(stream.close)
        while not training.over:
            if not training.step(stream):
                return None
    return conclude(run, training.done.steps, training.validation.over, training.by_user)


def begin(run: Run, done: TrainingPosition, state: dict[str, Any], stack: ExitStack) -> TrainingLoop:
    """The loop from a checkpoint's position and state; the stack closes its parts."""
    config, device, first = run.config, run.engine.device, run.engine.rank == 0
    guard = StepGuard(config.health, state.get("health", {}))
    validation = Validation(config, run.engine, run.data, run.cost, Best.of(config, state))
    ledger = Ledger(config, run.engine.rank, done.steps)
    peak, kept = peak_flops(config.train.precision, device), state.get("tracker", {})
    tracker = Tracker(config, done.steps, enabled=first, peak_flops=peak, claim=run.claim, **kept)
    stack.enter_context(tracker)
    profiler = stack.enter_context(Profiler(config, done.steps, device, enabled=first))
    return TrainingLoop(run, done, guard, validation, ledger, tracker, profiler, StragglerMonitor(config, device))


@dataclass
class TrainingLoop:
    """The loop from one checkpoint: its parts, which a rollback makes anew, and how far it is.

    save_due: a checkpoint is due, but has to wait for a good step. stop: whether a rank was told to. by_user: by the
    user.
    """

    run: Run
    done: TrainingPosition
    guard: StepGuard
    validation: Validation
    ledger: Ledger
    tracker: Tracker
    profiler: Profiler
    stragglers: StragglerMonitor
    save_due: bool = False
    stop: bool = False
    by_user: bool = False

    @property
    def sound(self) -> bool:
        """Whether the last step was good. Never publish among bad steps: if the weights went bad, the good checkpoints
        must stay."""
        return self.guard.streak == 0

    @property
    def last(self) -> bool:
        """Whether the last step is done."""
        return self.done.steps >= self.run.config.train.steps

    @property
    def over(self) -> bool:
        """Whether no further step is to be taken now."""
        return self.last or self.stop or (self.sound and self.validation.over is not None)

    def step(self, stream: Iterator[LoadedStep]) -> bool:
        """Takes a step, then validates and saves if that is due. Returns False if the run has to roll back."""
        watchdog, number = self.run.watchdog, self.done.steps
        self.profiler.begin(number + 1)
        begun = watchdog.clock()
        watchdog.beat("data", number)
        loaded = next(stream)
        wait_s = watchdog.clock() - begun
        taken = self.take(loaded)

        watchdog.beat("log")
        self.done = TrainingPosition(number + 1, loaded.step.stop, self.done.tokens + loaded.step.tokens)
        self.ledger.add(self.done.steps, self.run.loader, loaded)
        step_s = watchdog.clock() - begun
        # What is written in the background is published when that is done, but before another best can be found, a
        # rollback needs it, or the run ends.
        loss = taken.loss
        if not loss.writing or self.validation.due(self.done.steps) or self.guard.exhausted or loss.stop:
            self.publish()
        if taken.bad and self.must_roll_back(loaded, taken.bad):
            return False
        watchdog.beat("profile")
        self.tracker.paused(self.profiler.end(self.done.steps))
        self.count(loaded, step_s, wait_s)

        watchdog.beat("validate")
        validated = self.validation.after(self.done.steps)
        self.run.time_limit.validation_s = validated.seconds if validated else self.run.time_limit.validation_s
        self.tracker.log(self.done, taken, validated)
        self.stop, self.by_user = loss.stop, loss.by_user
        self.save_if_due()
        return True

    def take(self, loaded: LoadedStep) -> StepResult:
        """Forward, backward and the optimizer's step, skipped if loss or gradient are bad."""
        run, config, number = self.run, self.run.config, self.done.steps
        run.time_limit.validations = validations(number + 1, config.validation.every, config.train.steps)
        run.time_limit.saves = 1 if run.saver.finished else 2
        seed, beat = dropout_seed(config.seed, number), run.watchdog.beat
        loss = run.engine.forward_backward(loaded, seed, run.stop_request, self.stragglers.stopwatch, beat)
        if loss.disowned:
            on_rank0(run.claim.check)  # raises on every rank, with the reason
        bad = self.guard.judge_loss(loss.mean)
        lr = config.optimizer.lr * schedule.multiplier(config.schedule, number, config.train.steps)
        beat("optimizer")
        grad_norm = run.engine.optimizer_step(lr, skip=bad is not None)
        return StepResult(loss, lr, grad_norm, self.guard.judge_step(loss.mean, grad_norm, bad))

    def must_roll_back(self, loaded: LoadedStep, bad: BadStep) -> bool:
        """Reports a skipped step. Returns whether there were too many in a row; UserError if the run cannot roll
        back."""
        run, keys = self.run, keys_of(self.run.loader, loaded.step)
        return skipped_step(run.config, self.done.steps, bad, self.guard, run.roll_backs, run.saver.newest, keys)

    def count(self, loaded: LoadedStep, step_s: float, wait_s: float) -> None:
        """Counts what the step did and how long it took, for metrics, the time limit and the search for stragglers."""
        run = self.run
        flops = training_flops(run.shape, *loaded.step.lengths.T)
        capacity = run.engine.world_size * len(loaded.micro_batches) * run.config.data.micro_tokens
        self.tracker.count(loaded.step.tokens, capacity, flops, wait_s)
        run.time_limit.step_took(step_s)
        self.stragglers.step(self.done.steps, step_s, wait_s)

    def save_if_due(self) -> None:
        """Saves after the last step, when asked to stop, at a new best, and every checkpoint.every steps."""
        self.save_due = self.save_due or self.done.steps % self.run.config.checkpoint.every == 0
        if self.last or (self.sound and (self.save_due or self.over or self.validation.improved)):
            self.save()
            self.save_due = False
        else:
            self.validation.settle(self.done.steps, published=False)

    def save(self) -> None:
        """Saves a checkpoint. If it is written in the background, a later `publish` publishes it."""
        self.publish()  # the one before; if that fails, it is not the best in this one's state
        self.run.watchdog.beat("save")
        begun = time.monotonic()
        state = {"health": self.guard.state(), **self.validation.best.state(), "tracker": self.tracker.state()}
        self.settle(self.run.saver.save(self.done, state, final=self.over))
        self.tracker.saved(time.monotonic() - begun)

    def publish(self) -> None:
        """Publishes the checkpoint that is written in the background, if there is one; waits for it."""
        if self.run.saver.finished:
            return
        self.run.watchdog.beat("save")
        begun = time.monotonic()
        self.settle(self.run.saver.finish())
        self.tracker.saved(time.monotonic() - begun)

    def settle(self, saved: SaveResult | None) -> None:
        """Tells the others how a save ended. None: not yet."""
        if saved is None:
            return
        if saved.path is not None:
            self.run.time_limit.save_s = saved.published_s
            self.tracker.published(saved.step, saved.path)
        self.validation.settle(saved.step, published=saved.path is not None)


def conclude(run: Run, done: int, early: str | None, by_user: bool) -> Outcome:
    """Records in state.json how the run ended, and logs why if that was before its last step."""
    config, steps, newest = run.config, run.config.train.steps, run.saver.newest
    early = early if done < steps else None
    if newest == steps or early is not None:
        how = End.TRAINED
    elif by_user:
        how = End.STOPPED
    else:
        limit = run.time_limit.late(time.time()) or is_limit_signal(os.environ, time.time())
        how = End.TIME_LIMIT if limit else End.PREEMPTED
    outcome = Outcome(how, newest, early)
    if run.engine.rank > 0:
        return outcome
    reason, fields = "", {} if early is None else {"early": early}
    if early is not None:
        print(f"{early}; ended after step {done} of {steps}", flush=True)
    elif done < steps:
        reason = run.flag.received or run.late() or "another rank was told to stop"
        report_end(config.run_dir, done, newest, reason)
    run.claim.end(Writer.RANK_0, how, reason, step=newest, steps=steps, **fields)
    return outcome


def same_on_all_ranks(fingerprint: str, where: str) -> None:
    """UserError on every rank if they opened different data, as when a folder is replaced while they start."""
    if len(found := set(gathered(fingerprint))) > 1:
        raise UserError(f"ranks opened different data: {' '.join(sorted(found))}", where, "start again")


def dropout_seed(seed: int, step: int) -> int:
    """Seed of a step's dropout, on every rank. With it, checkpoints need no generator state."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))
