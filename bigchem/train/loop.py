"""Training, from a configuration to a published checkpoint of the last step. Reads from top to bottom."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from bigchem.config import RunConfig
from bigchem.data.batches import Step
from bigchem.data.loader import Loader
from bigchem.data.plan import flops_cost, open_data
from bigchem.data.shards import Data
from bigchem.data.tokenizer import Tokenizer
from bigchem.errors import UserError
from bigchem.model import presets
from bigchem.model.flops import training_flops
from bigchem.model.t5 import PackedT5
from bigchem.train import schedule
from bigchem.train.best import Best
from bigchem.train.engine import Engine
from bigchem.train.model import build, peak_flops, record, with_local_weights
from bigchem.train.probe import Probe
from bigchem.train.profile import Profiler
from bigchem.train.ranks import say
from bigchem.train.saving import Done, Saver
from bigchem.train.signals import StopFlag
from bigchem.train.state import write_state
from bigchem.train.tracking import Tracker
from bigchem.train.validation import Validation


@dataclass(frozen=True)
class Outcome:
    """How training ended: `finished` all its steps or early by validation, or stopped after publishing a checkpoint.

    signal: what this rank received; None where only another rank was told to stop. early: why before its last step.
    """

    finished: bool
    steps: int
    signal: str | None
    early: str | None = None


def train(config: RunConfig, device: torch.device) -> Outcome:
    """Trains until the last step or a stop signal. The process group is up; every rank calls this.

    A run folder that holds a published checkpoint is resumed from its newest one.
    """
    rank, world_size, steps = dist.get_rank(), dist.get_world_size(), config.train.steps
    config = with_local_weights(config)
    data = open_data(config.data)
    cost = flops_cost(config.model, Tokenizer.load(data.tokenizer_dir).vocab_size)
    loader = Loader(data, config.data, config.seed, rank, world_size, cost)
    same_on_all_ranks(data.index.fingerprint, config.data.path)
    model = build(config, data, device)
    engine = Engine(model, config, device)
    hf_config = presets.to_hf_config(model.shape, config.model.dropout)
    saver = Saver(config, engine, Probe.of(loader), data.index.fingerprint, hf_config)
    done, state = saver.resume()
    validation = Validation(config, engine, data, cost, Best.of(config, state))
    introduce(config, engine, model, loader, data, done)

    with ExitStack() as stack:
        flag = stack.enter_context(StopFlag())
        stack.callback(saver.close)
        tracker = stack.enter_context(
            Tracker(config, done.steps, enabled=rank == 0, peak_flops=peak_flops(config.train.precision, device))
        )
        stream = loader.steps(done.examples)
        stack.callback(stream.close)
        profiler = stack.enter_context(Profiler(config, done.steps, device, enabled=rank == 0))
        stop = validation.over is not None
        while done.steps < steps and not stop:
            profiler.begin(done.steps + 1)
            waited = time.monotonic()
            loaded = next(stream)
            wait_s = time.monotonic() - waited
            step = loaded.step

            seed = dropout_seed(config.seed, done.steps, rank)
            loss = engine.forward_backward(loaded, seed, flag.received is not None)
            check_finite(loss.mean, "loss", done.steps, loader, step)
            lr = config.optimizer.lr * schedule.multiplier(config.schedule, done.steps, steps)
            grad_norm = engine.optimizer_step(lr)
            check_finite(grad_norm, "gradient norm", done.steps, loader, step)

            done = Done(done.steps + 1, step.stop, done.tokens + step.tokens)
            flops = training_flops(model.shape, step.lengths[:, 0], step.lengths[:, 1])
            room = world_size * len(loaded.micro_batches) * config.data.micro_tokens
            tracker.paused(profiler.end(done.steps))
            tracker.count(step.tokens, room, flops, wait_s)
            validated = validation.after(done.steps)
            tracker.log(done, loss, lr, grad_norm, validated)
            stop = loss.stop or validation.over is not None
            last = done.steps == steps or stop
            if done.steps % config.checkpoint.every == 0 or last or validation.improved:
                tracker.saved(saver.save(done, validation.best.state(), final=last).seconds)
    early = validation.over if done.steps < steps else None
    outcome = Outcome(done.steps == steps or early is not None, saver.newest, flag.received, early)
    conclude(config, outcome)
    return outcome


def introduce(config: RunConfig, engine: Engine, model: PackedT5, loader: Loader, data: Data, done: Done) -> None:
    """Says what is about to be trained, on what, and from where; the run folder gets model.json."""
    if engine.rank == 0:
        record(config, model, engine.device)
    ranks, device = engine.world_size, engine.device
    say(f"{presets.num_parameters(model.shape):,} parameters, ZeRO-{engine.zero_stage}, {ranks} ranks, {device}")
    say(f"data {data.index.fingerprint}: {loader.plan.describe()}")
    if advice := loader.plan.advice(data):
        say(advice)
    say(f"from step {done.steps}, example {done.examples}" if done.steps else "from the start")


def conclude(config: RunConfig, outcome: Outcome) -> None:
    """Leaves in state.json how training ended, and says what is not plain."""
    early = {} if outcome.early is None else {"early": outcome.early}
    if dist.get_rank() == 0:
        state = "trained" if outcome.finished else "stopped"
        write_state(config.run_dir, state, step=outcome.steps, steps=config.train.steps, **early)
    if outcome.early is not None:
        say(f"{outcome.early}; ended after step {outcome.steps} of {config.train.steps}")


def same_on_all_ranks(fingerprint: str, where: str) -> None:
    """UserError on every rank if some opened other data: a folder that was replaced while they started."""
    found: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(found, fingerprint)
    if set(found) != {fingerprint}:
        raise UserError(f"ranks opened different data: {' '.join(sorted(map(str, set(found))))}", where, "start again")


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Seed of one rank's dropout in one step, so that no generator's state needs saving."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def check_finite(value: float, what: str, number: int, loader: Loader, step: Step) -> None:
    """Stops the run where a number is not finite, before a checkpoint of it could be published."""
    if math.isfinite(value):
        return
    keys = loader.keys(step)
    raise UserError(
        f"{what} is {value} at step {number}",
        f"examples {' '.join(keys[:4])} and {max(0, len(keys) - 4)} more",
        "lower optimizer.lr, or look at these rows; the last checkpoint is unharmed",
    )
