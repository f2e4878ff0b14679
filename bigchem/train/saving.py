"""Saves and resumes a run: the engine writes the files, checkpoint/store.py publishes them."""

import math
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError
from bigchem.base.printable import number_of
from bigchem.base.progress import amount
from bigchem.config import RunConfig
from bigchem.plan.memory.states import staging_bytes
from bigchem.plan.memory.worst_case import setup_of
from bigchem.run.log_files import record_event
from bigchem.run.ownership import Claim
from bigchem.train.checkpoint import store
from bigchem.train.checkpoint.async_save import saves_in_background
from bigchem.train.checkpoint.best import best_step
from bigchem.train.checkpoint.ds_checkpoint_engine import BigchemCheckpointEngine
from bigchem.train.checkpoint.mirror import Mirror
from bigchem.train.checkpoint.probe import Probe, agree
from bigchem.train.checkpoint.store import Manifest
from bigchem.train.collectives import gathered, on_rank0, say
from bigchem.train.engine import Engine


@dataclass(frozen=True)
class TrainingPosition:
    """Progress of a run: optimizer steps, examples consumed by all ranks together, and their real tokens."""

    steps: int = 0
    examples: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class SaveResult:
    """A save. paused_s: seconds that training paused for it. published_s: seconds from its start until it was
    published; the same unless it was written in the background. bytes: on disk. path: None if it failed."""

    step: int
    paused_s: float
    published_s: float
    bytes: int
    path: Path | None


@dataclass
class _Save:
    """A save that is not published yet. begun, begun_writing: by the monotonic clock. copied_s: seconds of DeepSpeed's
    save, which in the background only copies. paused_s: so far."""

    manifest: Manifest
    files: BigchemCheckpointEngine
    final: bool
    background: bool
    begun: float
    begun_writing: float
    copied_s: float
    paused_s: float

    @property
    def step(self) -> int:
        return self.manifest.step

    def result(self, again: float, size: int, path: Path | None) -> SaveResult:
        """The result now. again: since when training pauses for it again."""
        now = time.monotonic()
        return SaveResult(self.step, self.paused_s + now - again, now - self.begun, size, path)

    def summary(self, saved: SaveResult) -> str:
        """The log line."""
        if self.background:
            cost = f"{amount(saved.bytes)}, copied in {self.copied_s:.2f} s, published after {saved.published_s:.2f} s"
        else:
            cost = _cost(saved.bytes, saved.published_s - (self.begun_writing - self.begun))
        return f"checkpoint after step {self.step}: {cost}; training paused for {saved.paused_s:.2f} s"


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
        self._background: bool | None = None
        self._unpublished: _Save | None = None
        self.newest = 0

    def save(self, done: TrainingPosition, state: dict[str, Any], *, final: bool = False) -> SaveResult | None:
        """Publishes a checkpoint. state: see Manifest. None: only copied yet, because the run saves asynchronously;
        `finish` publishes it. The one before must be finished.

        If a rank cannot write, all ranks agree on that, the partial checkpoint is removed and the run continues. final:
        this is the last save, so it is published at once, and a failure is a UserError. So are weights that give the
        probe a non-finite loss, and a run that another attempt owns by now.
        """
        begun = time.monotonic()
        background = not final and self._saves_in_background()
        probe_loss = self._engine.evaluate(self._probe.batch()).mean
        if not math.isfinite(probe_loss):
            raise UserError(
                f"the weights after step {done.steps} give the probe batch a loss of {probe_loss}: not saved",
                str(self._folder),
                f"lower optimizer.lr; {self._last_good()}",
            )
        begun_writing = time.monotonic()
        partial = self._partial(done.steps)

        def prepare() -> None:
            self._claim.check()
            if error := self._removal.exception():  # waits: the new checkpoint may need that space
                print(f"old checkpoints cannot be removed: {_line(error)}; training continues", flush=True)
            shutil.rmtree(partial, ignore_errors=True)  # left by a killed attempt

        on_rank0(prepare)
        manifest = self._manifest(done, probe_loss, deepcopy(state))
        begun_copying = time.monotonic()
        files = self._engine.save(self._folder, partial.name, background=background)
        now = time.monotonic()
        copied_s, paused_s = now - begun_copying, now - begun if background else 0.0
        self._unpublished = _Save(manifest, files, final, background, begun, begun_writing, copied_s, paused_s)
        return None if background else self.finish()

    def finish(self) -> SaveResult | None:
        """Publishes the checkpoint of the last `save` if that is not done; waits until all ranks have written it. None:
        there was nothing to do. Failures: see `save`."""
        if (saving := self._unpublished) is None:
            return None
        self._unpublished = None
        again = time.monotonic() if saving.background else saving.begun
        step, files, partial = saving.step, saving.files, self._partial(saving.step)
        files.finish()
        outcomes = gathered((files.written, None if files.error is None else _line(files.error), files.ours))
        failures = [f"on rank {rank}: {error}" for rank, (_, error, _) in enumerate(outcomes) if error is not None]
        written = {path: known for part, _, _ in outcomes for path, known in part.items()}
        if any(ours for _, _, ours in outcomes):  # a bug, not the disk: saving again would fail again
            raise RuntimeError(f"the checkpoint after step {step} failed {failures[0]}") from files.error

        def publish() -> None:
            self._claim.check()  # again: writing may have taken minutes
            store.publish(self._folder, partial, saving.manifest, written)

        if not failures:
            try:
                on_rank0(publish)
            except UserError as error:
                failures = [f"on rank 0: {error.what}"]
        if failures:
            on_rank0(lambda: shutil.rmtree(partial, ignore_errors=True))
            self._report_failure(step, failures[0], final=saving.final)
            return saving.result(again, 0, None)
        self.newest = step
        path = self._folder / store.step_name(step)
        size = on_rank0(lambda: self._tidy(path, best_step(saving.manifest.state)))
        saved = saving.result(again, size, path)
        say(saving.summary(saved))
        return saved

    @property
    def finished(self) -> bool:
        """Whether `finish` has nothing to do."""
        return self._unpublished is None

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
        """Waits for the last copy and the last removal. A checkpoint that was not finished stays partial."""
        if self._unpublished is not None:
            self._unpublished.files.abandon()
        self._mirror.close()
        self._remover.shutdown()

    def _partial(self, step: int) -> Path:
        return self._folder / (store.step_name(step) + store.PARTIAL)

    def _saves_in_background(self) -> bool:
        """Decided at the first save, when everything else of the run is in memory."""
        if self._background is None:
            self._background = saves_in_background(self._config, self._engine.device.type, self._staging_bytes)
        return self._background

    def _staging_bytes(self) -> int:
        engine = self._engine
        setup = setup_of(self._config, engine.ds_config, engine.world_size, engine.device.type)
        return staging_bytes(engine.module.shape, setup, engine.rank)

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
                f"saved by {number_of('rank', manifest.world_size)} at ZeRO-{manifest.zero_stage} {saved}".rstrip()
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
            saved = f"{number_of('rank', manifest.world_size)} at ZeRO-{manifest.zero_stage}"
            raise UserError(
                f"loaded by {number_of('rank', engine.world_size)} at ZeRO-{engine.zero_stage}, its weights give the "
                f"probe batch a loss of {loss:.6f}; the engine recorded {recorded:.6f} at the save by {saved}",
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
