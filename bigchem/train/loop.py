"""Training, from a configuration to a published checkpoint of the last step. Reads from top to bottom."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from bigchem.config import RunConfig
from bigchem.data.loader import Loader
from bigchem.data.plan import flops_cost, open_data
from bigchem.data.tokenizer import Tokenizer
from bigchem.errors import UserError
from bigchem.model import presets
from bigchem.model.flops import training_flops
from bigchem.train import schedule
from bigchem.train.clock import Clock, job_end
from bigchem.train.engine import Engine
from bigchem.train.events import go_back, keys_of, tell_end
from bigchem.train.health import Health, RollBacks
from bigchem.train.leave import EXIT_REQUEUE
from bigchem.train.ledger import Ledger
from bigchem.train.model import build, peak_flops, record, with_local_weights
from bigchem.train.pace import Pace
from bigchem.train.probe import Probe
from bigchem.train.ranks import say
from bigchem.train.saving import Done, Saver
from bigchem.train.signals import StopFlag, Wish
from bigchem.train.state import write_state
from bigchem.train.tracking import Tracker
from bigchem.train.watchdog import Requeue, Watchdog


@dataclass(frozen=True)
class Outcome:
    """How training ended: `finished` all its steps, or stopped after publishing a checkpoint.

    steps: that the newest checkpoint holds. by_person: stopped by a person, and not by the cluster or the clock.
    """

    finished: bool
    steps: int
    by_person: bool


@dataclass(frozen=True)
class Run:
    """What every attempt at a run works with."""

    config: RunConfig
    shape: presets.Shape
    engine: Engine
    loader: Loader
    saver: Saver
    flag: StopFlag
    watchdog: Watchdog
    clock: Clock
    roll_backs: RollBacks

    def wish(self) -> Wish:
        """What this rank wants: what a signal said, or on rank 0, whose clock counts for all, to be in time."""
        if self.flag.wish is Wish.GO_ON and self.engine.rank == 0 and self.clock.late(time.time()):
            return Wish.MAKE_WAY
        return self.flag.wish


def train(config: RunConfig, device: torch.device, requeue: Requeue = lambda lead: EXIT_REQUEUE) -> Outcome:
    """Trains until the last step or a wish to stop. The process group is up; every rank calls this.

    A run folder that holds a published checkpoint is resumed from its newest one. requeue: see Watchdog.
    """
    rank, world_size = dist.get_rank(), dist.get_world_size()
    with ExitStack() as stack:
        flag = stack.enter_context(StopFlag())
        watchdog = stack.enter_context(Watchdog(config.run_dir, rank, world_size, config.health.hang_s, requeue))
        clock = Clock(job_end(os.environ), time.time())
        config = with_local_weights(config)
        data = open_data(config.data)
        cost = flops_cost(config.model, Tokenizer.load(data.tokenizer_dir).vocab_size)
        loader = Loader(data, config.data, config.seed, rank, world_size, cost)
        same_on_all_ranks(data.index.fingerprint, config.data.path)
        model = build(config, data, device)
        engine = Engine(model, config, device)
        hf_config = presets.to_hf_config(model.shape, config.model.dropout)
        if rank == 0:
            record(config, model, device)
        saver = Saver(config, engine, Probe.of(loader), data.index.fingerprint, hf_config)
        size = f"{presets.num_parameters(model.shape):,} parameters"
        say(f"{size}, ZeRO-{engine.zero_stage}, {world_size} ranks, {device}")
        say(f"data {data.index.fingerprint}: {loader.plan.describe()}")
        if advice := loader.plan.advice(data):
            say(advice)
        run = Run(config, model.shape, engine, loader, saver, flag, watchdog, clock, RollBacks())
        while (outcome := attempt(run)) is None:
            pass
    if rank == 0:
        ended = "trained" if outcome.finished else "stopped"
        write_state(config.run_dir, ended, step=outcome.steps, steps=config.train.steps)
    return outcome


def attempt(run: Run) -> Outcome | None:
    """Trains from the newest checkpoint on; None: too many bad steps, and the run is to go back to it."""
    config, engine, loader, watchdog, clock = run.config, run.engine, run.loader, run.watchdog, run.clock
    rank, world_size, steps = engine.rank, engine.world_size, config.train.steps
    watchdog.beat("resume")
    done, state = run.saver.resume()
    say(f"from step {done.steps}, example {done.examples}" if done.steps else "from the start")
    saved, due, stop = done.steps, False, False
    health = Health(config.health, state.get("health", {}))
    ledger = Ledger(config, rank, done.steps)
    pace = Pace(config, engine.device)
    with ExitStack() as stack:
        peak = peak_flops(config.train.precision, engine.device)
        tracker = stack.enter_context(Tracker(config, done.steps, enabled=rank == 0, peak_flops=peak))
        stream = loader.steps(done.examples)
        stack.callback(stream.close)
        while done.steps < steps and not stop:
            begun = time.monotonic()
            watchdog.beat("data", done.steps)
            loaded = next(stream)
            wait_s = time.monotonic() - begun
            step = loaded.step

            seed = dropout_seed(config.seed, done.steps, rank)
            loss = engine.forward_backward(loaded, seed, run.wish, pace.stopwatch, watchdog.beat)
            bad = health.judge_loss(loss.mean)
            lr = config.optimizer.lr * schedule.multiplier(config.schedule, done.steps, steps)
            watchdog.beat("optimizer")
            grad_norm = engine.optimizer_step(lr, skip=bad is not None)
            bad = health.judge_step(loss.mean, grad_norm, bad)

            watchdog.beat("log")
            done = Done(done.steps + 1, step.stop, done.tokens + step.tokens)
            ledger.add(done.steps, loader, loaded)
            if bad and go_back(config, done.steps, bad, health, run.roll_backs, saved, keys_of(loader, step)):
                return None
            flops = training_flops(run.shape, step.lengths[:, 0], step.lengths[:, 1])
            room = world_size * len(loaded.micro_batches) * config.data.micro_tokens
            tracker.log(done, loss, lr, grad_norm, tokens=step.tokens, room=room, flops=flops, wait_s=wait_s)
            clock.step_took(time.monotonic() - begun)
            pace.step(done.steps, time.monotonic() - begun, wait_s)

            stop = loss.stop
            due = due or done.steps % config.checkpoint.every == 0
            # Among bad steps nothing is published: if the weights are what went bad, the good checkpoints stay.
            if done.steps == steps or (health.streak == 0 and (due or stop)):
                watchdog.beat("save")
                clock.save_s = run.saver.save(done, {"health": health.state()})
                saved, due = done.steps, False
                say(f"checkpoint after step {saved}, {clock.save_s:.1f} s")
    if stop and rank == 0:
        reason = run.flag.received or clock.late(time.time()) or "another rank was told to"
        tell_end(config.run_dir, done.steps, saved, reason)
    return Outcome(saved == steps, saved, stop and loss.by_person)


def same_on_all_ranks(fingerprint: str, where: str) -> None:
    """UserError on every rank if some opened other data: a folder that was replaced while they started."""
    found: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(found, fingerprint)
    if set(found) != {fingerprint}:
        raise UserError(f"ranks opened different data: {' '.join(sorted(map(str, set(found))))}", where, "start again")


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Seed of one rank's dropout in one step, so that no generator's state needs saving."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
