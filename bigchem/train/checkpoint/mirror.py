"""Copies published checkpoints to a second folder or a URL, in a thread while training continues.

A failed copy is logged and has no other effect. A copy with a manifest.json is complete: at a URL the manifest is sent
last and removed first; in a folder the whole checkpoint is renamed into place. A restore copies the files listed in the
manifest and verifies them before they count as a checkpoint.
"""

import re
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from bigchem.base import atomic
from bigchem.base.errors import UserError
from bigchem.config import CheckpointConfig
from bigchem.data.storage.remote import install_hint, is_url
from bigchem.train.checkpoint.store import PARTIAL, DamagedError, Manifest, step_name, superseded

MANIFEST = "manifest.json"


class Mirror:
    """The copies of one run's checkpoints. Only rank 0 calls methods other than `close`. Without `checkpoint.copy_to`
    they do nothing. failed: called from the copying thread with the log line of a failed copy."""

    def __init__(self, config: CheckpointConfig, run: str, failed: Callable[[str], object] = lambda line: None) -> None:
        self._config, self._failed = config, failed
        self._to = None if config.copy_to is None else f"{config.copy_to.rstrip('/')}/{run}"
        self._pool = ThreadPoolExecutor(1)
        self._futures: dict[Path, Future[None]] = {}

    @property
    def pending(self) -> list[Path]:
        """Checkpoints that are being copied or queued for it."""
        return [path for path, future in self._futures.items() if not future.done()]

    def add(self, checkpoint: Path, best: int | None = None) -> None:
        """Copies a checkpoint in the background. A newer one replaces one that is still queued."""
        if self._to is None:
            return
        for path, future in self._futures.items():
            if future.cancel():
                print(f"{path.name} is not copied: the previous copy is still running", flush=True)
        self._futures = {path: future for path, future in self._futures.items() if not future.done()}
        self._futures[checkpoint] = self._pool.submit(self._copy, self._to, checkpoint, best)

    def fetch(self, checkpoints: Path) -> Path | None:
        """Restores the newest intact copy into an empty folder of checkpoints. None if there are no copies.

        UserError if the copies cannot be read, or none is intact: a run that started over by mistake would overwrite
        its own copies.
        """
        if self._to is None:
            return None
        try:
            store = _Store(self._to)
            steps = sorted(store.steps(), reverse=True)
            for step in steps:
                final = checkpoints / step_name(step)
                partial = final.with_name(final.name + PARTIAL)
                shutil.rmtree(partial, ignore_errors=True)
                if (damage := store.get(step, partial)) is None:
                    print(f"no checkpoint in {checkpoints}: {final.name} restored from {self._to}", flush=True)
                    partial.rename(final)
                    atomic.fsync(checkpoints)
                    return final
                print(f"the copy of {final.name} in {self._to} is damaged: {damage}", flush=True)
                shutil.rmtree(partial, ignore_errors=True)
        except UserError:
            raise
        except Exception as error:  # each protocol raises its own library's errors
            what = f"cannot read the copies: {_line(error)}"
            raise UserError(what, self._to, "fix that, or unset checkpoint.copy_to") from None
        if steps:
            raise UserError("no intact copy", self._to, "restore one, or remove them to start over")
        return None

    def close(self) -> None:
        """Waits for pending copies."""
        if self.pending:
            print(f"waiting for the copy of {self.pending[-1].name} to {self._to}", flush=True)
        self._pool.shutdown()

    def _copy(self, to: str, checkpoint: Path, best: int | None) -> None:
        try:
            store = _Store(to)
            store.put(checkpoint)
            for step in superseded(store.steps(), self._config, best):
                store.remove(step)
        except Exception as error:  # whatever it is, training continues
            line = f"copy of {checkpoint.name} to {to} failed: {_line(error)}; training continues"
            print(line, flush=True)
            self._failed(line)


class _Store:
    """The checkpoints in one folder or at one URL."""

    def __init__(self, to: str) -> None:
        from fsspec.core import url_to_fs

        try:
            self._fs, path = url_to_fs(to if is_url(to) else str(Path(to).expanduser().absolute()))
        except ImportError as error:
            raise UserError(f"cannot be opened: {error}", to, install_hint(to)) from None
        self._root, self._local = PurePosixPath(path), not is_url(to)

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints."""
        self._fs.invalidate_cache()
        if not self._fs.exists(str(self._root)):
            return []
        names = [PurePosixPath(str(path).rstrip("/")).name for path in self._fs.ls(str(self._root), detail=False)]
        steps = [int(name.removeprefix("step_")) for name in names if re.fullmatch(r"step_\d+", name)]
        return [step for step in steps if self._fs.exists(str(self._at(step) / MANIFEST))]

    def put(self, checkpoint: Path) -> None:
        """Copies a checkpoint, replacing an older one of the same name."""
        if self._local:
            with atomic.replace_folder(Path(self._root) / checkpoint.name) as partial:
                shutil.copytree(checkpoint, partial, dirs_exist_ok=True)
            return
        at = self._root / checkpoint.name
        self._remove(at)
        files = [path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file()]
        for name in sorted(files, key=lambda name: (str(name) == MANIFEST, name)):
            self._fs.makedirs(str((at / name).parent), exist_ok=True)
            self._fs.put_file(str(checkpoint / name), str(at / name))

    def get(self, step: int, to: Path) -> str | None:
        """Copies the files in a checkpoint's manifest into a new folder and fsyncs them. Returns what is wrong with
        them, or None."""
        self._get_file(step, MANIFEST, to)
        try:
            manifest = Manifest.read(to)
        except DamagedError as error:
            return error.what
        for name in manifest.files:
            with suppress(FileNotFoundError):  # reported below as damage
                self._get_file(step, name, to)
        for path in [*to.rglob("*"), to]:
            atomic.fsync(path)
        return manifest.damage(to)

    def remove(self, step: int) -> None:
        """Removes a checkpoint, manifest first."""
        self._remove(self._at(step))

    def _remove(self, at: PurePosixPath) -> None:
        self._fs.invalidate_cache()
        if self._fs.exists(str(at / MANIFEST)):
            self._fs.rm_file(str(at / MANIFEST))
        if self._fs.exists(str(at)):
            self._fs.rm(str(at), recursive=True)

    def _get_file(self, step: int, name: str, to: Path) -> None:
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fs.get_file(str(self._at(step) / name), str(path))

    def _at(self, step: int) -> PurePosixPath:
        return self._root / step_name(step)


def _line(error: Any) -> str:
    return " ".join(str(error).split()) or type(error).__name__
