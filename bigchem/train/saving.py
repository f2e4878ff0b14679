"""Saves and resumes a run: the engine writes the files, checkpoint/store.py publishes them."""

import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError
from bigchem.base.progress import amount
from bigchem.config import RunConfig
from bigchem.run.log_files import record_event
from bigchem.run.ownership import Claim
from bigchem.train.checkpoint import store
from bigchem.train.checkpoint.best import best_step
from bigchem.train.checkpoint.mirror import Mirror
from bigchem.train.checkpoint.probe import Probe, agree
from bigchem.train.checkpoint.store import Manifest
from bigchem.train.collectives import gathered, on_rank0, ranks, say
from bigchem.train.engine import Engine


@dataclass(frozen=True)
class TrainingPosition:
    """Progress of a run: optimizer steps, examples consumed by all ranks together, and their real tokens."""

    steps: int = 0
    examples: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class SaveResult:
    """Cost of a save: seconds that training paused, and bytes on disk. path: None if the save failed."""

    seconds: float
    bytes: int
    path: Path | None


class Saver:
    """Publishes a run's checkpoints and resumes from them. All methods are collective.

    data_fingerprint: of the training data. hf_config: the model's shape, for export. claim: on the run; None if no
    launcher made one. newest: steps of the newest checkpoint known to be good; 0: none.
    """

    def __init__(
        self,
        config: RunConfig,
        engine: Engine,
        probe: Probe,
        data_fingerprint: str,
        hf_config: dict[str, Any],
        claim: Claim | None = None,
    ) -> None:
        self._claim = claim or Claim(config.run_dir)
        self._config, self._engine, self._probe = config, engine, probe
        self._data_fingerprint, self._hf_config = data_fingerprint, hf_config
        self._folder = config.run_dir / "checkpoints"
        self._mirror = Mirror(config.checkpoint, config.name, self._record_failed_copy)
        self._remover = ThreadPoolExecutor(1)
        self._removal = self._remover.submit(lambda: None)
        self.newest = 0

    def save(self, done: TrainingPosition, state: dict[str, Any], *, final: bool = False) -> SaveResult:
        """Publishes a checkpoint. state: see Manifest.

        If a rank cannot write, all ranks agree on that, the partial checkpoint is removed and the run continues. final:
        this is the last save, so a failure is a UserError. So are weights that give the probe a non-finite loss, and a
        run that another attempt owns by now.
        """
        begun = time.monotonic()
        probe_loss = self._engine.evaluate(self._probe.batch()).mean
        if not math.isfinite(probe_loss):
            raise UserError(
                f"the weights after step {done.steps} give the probe batch a loss of {probe_loss}: not saved",
                str(self._folder),
                f"lower optimizer.lr; {self._last_good()}",
            )
        begun_writing = time.monotonic()
        name = store.step_name(done.steps)
        partial = self._folder / (name + store.PARTIAL)

        def prepare() -> None:
            self._claim.check()
            if error := self._removal.exception():  # waits: the new checkpoint may need that space
                print(f"old checkpoints cannot be removed: {_line(error)}; training continues", flush=True)
            shutil.rmtree(partial, ignore_errors=True)  # left by a killed attempt

        on_rank0(prepare)
        files = self._engine.save(self._folder, partial.name)
        outcomes = gathered((files.written, None if files.error is None else _line(files.error), files.ours))
        failures = [f"on rank {rank}: {error}" for rank, (_, error, _) in enumerate(outcomes) if error is not None]
        written = {path: known for part, _, _ in outcomes for path, known in part.items()}
        if any(ours for _, _, ours in outcomes):  # a bug, not the disk: saving again would fail again
            raise RuntimeError(f"the checkpoint after step {done.steps} failed {failures[0]}") from files.error
        manifest = self._manifest(done, probe_loss, state)

        def publish() -> None:
            self._claim.check()  # again: writing may have taken minutes
            store.publish(self._folder, partial, manifest, written)

        if not failures:
            try:
                on_rank0(publish)
            except UserError as error:
                failures = [f"on rank 0: {error.what}"]
        if failures:
            on_rank0(lambda: shutil.rmtree(partial, ignore_errors=True))
            self._report_failure(done.steps, failures[0], final=final)
            return SaveResult(time.monotonic() - begun, 0, None)
        self.newest = done.steps
        size = on_rank0(lambda: self._tidy(self._folder / name, best_step(state)))
        now = time.monotonic()
        seconds, cost = now - begun, _cost(size, now - begun_writing)
        say(f"checkpoint after step {done.steps}: {cost}; training paused for {seconds:.2f} s")
        return SaveResult(seconds, size, self._folder / name)

    def resume(self) -> tuple[TrainingPosition, dict[str, Any]]:
        """Loads the newest checkpoint that matches its manifest, if any. Returns its position and state (see Manifest).
        Damaged ones are set aside. UserError if none is intact, or if it is of another model or other data."""
        if lost := on_rank0(lambda: store.repair_latest(self._folder)):
            line = f"`latest` named {lost}, which is missing: it now names the newest checkpoint"
            self._report(0, "checkpoint damaged", "repaired", line)
        while (newest := on_rank0(self._newest)) is not None:
            found = on_rank0(lambda path=newest: _read(path))  # type: ignore[misc]
            if isinstance(found, Manifest):
                kind = self._config.optimizer.kind
                found.refuse_unless(newest, self._data_fingerprint, self._config.train.precision, kind)
                if found.model != self._hf_config:
                    raise UserError("holds another model", str(newest), "give the run another name")
                shares = gathered(found.damage(newest, self._engine.rank, self._engine.world_size))
                damage = next((share for share in shares if share is not None), None)
                if damage is None:
                    return self._load(newest, found)
                found = damage
            on_rank0(lambda path=newest: store.set_aside(path))  # type: ignore[misc]
            before = on_rank0(self._newest)
            action = "none left" if before is None else f"continuing from {before.name}"
            line = f"{newest.name}: {found}: {action}; kept as {newest.name}{store.DAMAGED}"
            self._report(store.step_of(newest), "checkpoint damaged", action, line)
        if aside := on_rank0(lambda: store.damaged(self._folder)):
            raise UserError(
                f"no intact checkpoint: {', '.join(path.name for path in aside)}",
                str(self._folder),
                "restore one from a copy under its old name, or remove them to start over",
            )
        return TrainingPosition(), {}

    def close(self) -> None:
        """Waits for the last copy and the last removal."""
        self._mirror.close()
        self._remover.shutdown()

    def _manifest(self, done: TrainingPosition, probe_loss: float, state: dict[str, Any]) -> Manifest:
        return Manifest(
            step=done.steps,
            position=done.examples,
            tokens=done.tokens,
            world_size=self._engine.world_size,
            zero_stage=self._engine.zero_stage,
            precision=self._config.train.precision,
            optimizer=self._config.optimizer.kind,
            data_fingerprint=self._data_fingerprint,
            model=self._hf_config,
            probe=self._probe.with_loss(probe_loss),
            state=state,
        )

    def _tidy(self, new: Path, best: int | None) -> int:
        """Copies the new checkpoint and removes old ones. Returns its bytes, or 0 after an error, which is logged and
        costs no checkpoint."""
        try:
            self._mirror.add(new, best)
            store.doom_superseded(self._folder, self._config.checkpoint, best, in_use=self._mirror.pending)
            self._removal = self._remover.submit(store.remove_doomed, self._folder)  # gigabytes: takes a while
            return Manifest.read(new).bytes
        except (OSError, UserError) as error:
            print(f"{new.name} is published, but the cleanup failed: {_line(error)}; training continues", flush=True)
            return 0

    def _report_failure(self, step: int, failure: str, *, final: bool) -> None:
        good = self._last_good()
        if final:
            if self._engine.rank == 0:
                record_event(self._config.run_dir, step, "checkpoint failed", f"stopped: {good}", failure)
            raise UserError(
                f"the checkpoint after step {step} failed {failure}; {good}",
                str(self._folder),
                "free disk space and start the run again: it resumes from there",
            )
        line = f"checkpoint after step {step} failed {failure}; {good}; training continues"
        self._report(step, "checkpoint failed", "training continues", line)

    def _report(self, step: int, kind: str, action: str, line: str) -> None:
        """Logs a line on rank 0 and adds its row to the events."""
        say(line)
        if self._engine.rank == 0:
            record_event(self._config.run_dir, step, kind, action, line)

    def _record_failed_copy(self, line: str) -> None:
        record_event(self._config.run_dir, self.newest, "copy failed", "training continues", line)

    def _last_good(self) -> str:
        return f"the last good one is {store.step_name(self.newest)}" if self.newest else "no earlier one exists"

    def _newest(self) -> Path | None:
        found = store.folders(self._folder)
        if found or store.damaged(self._folder):
            return found[-1] if found else None
        return self._mirror.fetch(self._folder)

    def _load(self, newest: Path, manifest: Manifest) -> tuple[TrainingPosition, dict[str, Any]]:
        begun = time.monotonic()
        converted = self._engine.load(newest, manifest)
        self._prove(newest, manifest)
        if converted:
            engine, precision = self._engine, self._config.train.precision
            saved, now = (manifest.precision, precision) if manifest.precision != precision else ("", "")
            say(
                f"saved by {ranks(manifest.world_size)} at ZeRO-{manifest.zero_stage} {saved}".rstrip()
                + f", this job has {engine.world_size} at ZeRO-{engine.zero_stage} {now}".rstrip()
                + f": converted in {time.monotonic() - begun:.1f} s"
            )
        self.newest = manifest.step
        return TrainingPosition(manifest.step, manifest.position, manifest.tokens), manifest.state

    def _prove(self, newest: Path, manifest: Manifest) -> None:
        """UserError unless the loaded weights give the probe the loss that the engine recorded at the save."""
        engine, recorded, precision = self._engine, manifest.probe["loss"], self._config.train.precision
        loss = engine.evaluate(Probe.recorded(manifest.probe).batch()).mean
        if not agree(loss, recorded, precision, manifest.precision):
            saved = f"{ranks(manifest.world_size)} at ZeRO-{manifest.zero_stage}"
            raise UserError(
                f"loaded by {ranks(engine.world_size)} at ZeRO-{engine.zero_stage}, its weights give the probe batch "
                f"a loss of {loss:.6f}; the engine recorded {recorded:.6f} at the save by {saved}",
                str(newest),
                f"nothing was trained: resume on {saved} with the code and DeepSpeed file of the save, and report this",
            )


def _line(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"


def _read(path: Path) -> Manifest | str:
    try:
        return Manifest.read(path)
    except store.DamagedError as error:
        return error.what


def _cost(size: int, seconds: float) -> str:
    return f"{amount(size)} in {seconds:.2f} s ({amount(size / max(seconds, 1e-9))}/s)"
