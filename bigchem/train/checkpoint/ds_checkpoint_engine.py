"""DeepSpeed's checkpoint I/O: files are hashed and fsynced as they are written, and loaded without unpickling.

A rank that cannot write records the error and continues, so that it still reaches DeepSpeed's barriers. Afterwards all
ranks compare their errors.

In the background, torch.save fills host memory with the files' bytes, as it would fill the files; a thread then writes
them from there. No tensor is copied besides, and the thread, which hashes and writes, leaves Python to training.
"""

from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from torch.utils.serialization import config as serialization

from bigchem.train.checkpoint.block_hashes import BlockHash
from bigchem.train.checkpoint.hashed_file import HashedFile, Staging
from bigchem.train.checkpoint.torch_zip import load_safely


class BigchemCheckpointEngine(CheckpointEngine):  # type: ignore[misc]
    """DeepSpeed's checkpoint engine for one rank.

    masters_apart: names of parameters whose fp32 weights are among the optimizer's states. Model files omit these, so
    that no weight is written twice. direct: see HashedFile. written: {path: (bytes, digest)} since `begin`. error: of
    the first failed write. Both count after `finish`.
    """

    def __init__(self, masters_apart: Collection[str], *, direct: bool = True) -> None:
        super().__init__()
        self._apart, self._direct = frozenset(masters_apart), direct
        self._staging, self._thread = Staging(), ThreadPoolExecutor(1, "checkpoint")
        self._finished: Future[None] | None = None
        self.begin()

    def begin(self, *, background: bool = False) -> None:
        """Clears `written` and `error`. background: `save` only copies the files; `write_staged` writes them."""
        self.finish()
        self.written: dict[Path, tuple[int, str]] = {}
        self.error: Exception | None = None
        self._background = background
        self._staged: dict[Path, HashedFile] = {}

    def write_staged(self) -> None:
        """Starts to write the copied files in the background."""
        if self._staged:
            self._finished = self._thread.submit(self._write_staged)

    @property
    def writing(self) -> bool:
        """Whether files are being written in the background."""
        return self._finished is not None and not self._finished.done()

    def finish(self) -> None:
        """Waits until nothing is being written."""
        if self._finished is not None:
            self._finished.result()
            self._finished = None

    def abandon(self) -> None:
        """Stops writing in the background; the files stay incomplete."""
        for file in self._staged.values():
            file.abandon()

    def _write_staged(self) -> None:
        for path, file in self._staged.items():
            if self.error is not None:
                file.abandon()
            try:
                file.finish()
                self.written[path] = (file.size, file.digest)
            except Exception as error:
                self.error = self.error or error

    @property
    def ours(self) -> bool:
        """Whether the error is a bug, not the disk's."""
        return self.error is not None and not isinstance(self.error, OSError)

    def create(self, info: Any) -> None:
        """Nothing to prepare."""

    def commit(self, info: Any) -> bool:
        """Nothing to finish: bigchem publishes the checkpoint."""
        return True

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Makes a folder; records an error."""
        try:
            Path(path).mkdir(parents=True, exist_ok=exist_ok)
        except OSError as error:
            self.error = self.error or error

    def save(self, state_dict: dict[str, Any], path: str) -> None:
        """Writes, hashes and fsyncs a file, or copies it. Records an error; after one, nothing more is written."""
        if self.error is not None:
            return
        if self._apart and "module" in state_dict:
            retained = {name: value for name, value in state_dict["module"].items() if name not in self._apart}
            state_dict = {**state_dict, "module": retained}
        staging = self._staging if self._background else None
        try:
            file = HashedFile(Path(path), BlockHash(), direct=self._direct, staging=staging)
            with file, _options(pinned=self._background):
                torch.save(state_dict, file)  # type: ignore[arg-type]  # it only needs write and flush
            if self._background:
                self._staged[Path(path)] = file
            else:
                self.written[Path(path)] = (file.size, file.digest)
        except Exception as error:
            self.error = error

    def load(self, path: str, map_location: Any = None) -> dict[str, Any]:
        """A file's content, memory-mapped, on the CPU."""
        return load_safely(Path(path))


@contextmanager
def _options(*, pinned: bool) -> Iterator[None]:
    """Sets torch.save's options: no CRC-32 of every file, which nothing reads, as sha256 is stronger. pinned: a GPU's
    tensors pass through pinned memory."""
    options = {"save.compute_crc32": False, "save.use_pinned_memory_for_d2h": pinned}
    with serialization.patch(options):  # type: ignore[attr-defined]
        yield
