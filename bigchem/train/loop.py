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
from bigchem.data.tokenizer import Tokenizer
from bigchem.errors import UserError
from bigchem.model import presets
from bigchem.model.flops import training_flops
from bigchem.train import schedule, worst_case
from bigchem.train.engine import Engine
from bigchem.train.model import build, peak_flops, record, with_local_weights
from bigchem.train.probe import Probe
from bigchem.train.ranks import say
from bigchem.train.saving import Done, Saver
from bigchem.train.signals import StopFlag
from bigchem.train.state import write_state
from bigchem.train.tracking import Tracker


@dataclass(frozen=True)
class Outcome:
    """How training ended: `finished` all its steps, or stopped after publishing a checkpoint.

    signal: what this rank received; None where only another rank was told to stop.
    """

    finished: bool
    steps: int
    signal: str | None


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
    peak = peak_flops(config.train.precision, device)
    if rank == 0:
        record(config, model, device)
    saver = Saver(config, engine, Probe.of(loader), data.index.fingerprint, hf_config)
    done, _ = saver.resume()
    saved = done.steps
    say(
        f"{presets.num_parameters(model.shape):,} parameters, ZeRO-{engine.zero_stage}, {world_size} ranks, {device}\n"
        f"data {data.index.fingerprint}: {loader.plan.describe()}"
    )
    if advice := loader.plan.advice(data):
        say(advice)
    worst_case.check(engine, config, loader.plan, model.shape)
    say(f"from step {done.steps}, example {done.examples}" if done.steps else "from the start")

    with ExitStack() as stack:
        flag = stack.enter_context(StopFlag())
        tracker = stack.enter_context(Tracker(config, done.steps, enabled=rank == 0, peak_flops=peak))
        stream = loader.steps(done.examples)
        stack.callback(stream.close)
        stop = False
        while done.steps < steps and not stop:
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
            tracker.log(done, loss, lr, grad_norm, tokens=step.tokens, room=room, flops=flops, wait_s=wait_s)
            stop = loss.stop
            if done.steps % config.checkpoint.every == 0 or done.steps == steps or stop:
                seconds = saver.save(done, {})
                saved = done.steps
                say(f"checkpoint after step {saved}, {seconds:.1f} s")
    finished = done.steps == steps
    if rank == 0:
        write_state(config.run_dir, "trained" if finished else "stopped", step=done.steps, steps=steps)
    return Outcome(finished, saved, flag.received)


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
