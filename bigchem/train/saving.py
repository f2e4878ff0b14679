"""Saving a run and resuming it: between the engine, which writes and reads, and checkpoint.py, which publishes."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from bigchem.config import RunConfig
from bigchem.train import checkpoint
from bigchem.train.best import kept_step
from bigchem.train.engine import Engine
from bigchem.train.probe import Probe
from bigchem.train.ranks import on_rank0


@dataclass(frozen=True)
class Done:
    """How far a run is: optimizer steps, examples consumed by all ranks together, and their real tokens."""

    steps: int = 0
    examples: int = 0
    tokens: int = 0


class Saver:
    """Publishes a run's checkpoints and resumes from them. Every rank calls every method.

    data_fingerprint: of the data trained on. hf_config: the model's shape, for export.
    """

    def __init__(
        self, config: RunConfig, engine: Engine, probe: Probe, data_fingerprint: str, hf_config: dict[str, Any]
    ) -> None:
        self._config, self._engine, self._probe = config, engine, probe
        self._data_fingerprint, self._hf_config = data_fingerprint, hf_config
        self._folder = config.run_dir / "checkpoints"

    def save(self, done: Done, state: dict[str, Any]) -> float:
        """Publishes a checkpoint; seconds that training stood still for it. state: see Manifest."""
        begun = time.monotonic()
        engine = self._engine
        probe_loss = engine.evaluate(self._probe.batch()).mean
        partial = checkpoint.step_name(done.steps) + checkpoint.PARTIAL
        on_rank0(lambda: shutil.rmtree(self._folder / partial, ignore_errors=True))  # of an attempt that was killed
        engine.save(self._folder, partial)
        dist.barrier()
        manifest = checkpoint.Manifest(
            step=done.steps,
            position=done.examples,
            tokens=done.tokens,
            world_size=engine.world_size,
            zero_stage=engine.zero_stage,
            precision=self._config.train.precision,
            data_fingerprint=self._data_fingerprint,
            model=self._hf_config,
            probe=self._probe.with_loss(probe_loss),
            state=state,
        )

        def publish() -> None:
            checkpoint.publish(self._folder, self._folder / partial, manifest)
            checkpoint.clean(self._folder, self._config.checkpoint, best=kept_step(state))

        on_rank0(publish)
        return time.monotonic() - begun

    def resume(self) -> tuple[Done, dict[str, Any]]:
        """Loads the newest checkpoint, if there is one: how far it is, and its state (see Manifest). UserError if it
        does not fit this data, world size or stage."""
        newest = on_rank0(lambda: checkpoint.latest(self._folder))
        if newest is None:
            return Done(), {}
        manifest = checkpoint.Manifest.read(newest)
        engine = self._engine
        precision = self._config.train.precision
        manifest.refuse_unless(newest, engine.world_size, engine.zero_stage, precision, self._data_fingerprint)
        on_rank0(lambda: manifest.check_files(newest))
        engine.load(self._folder, newest.name)
        return Done(manifest.step, manifest.position, manifest.tokens), manifest.state
