"""DeepSpeed's checkpoint I/O: files are hashed and fsynced as they are written, and loaded without unpickling.

A rank that cannot write records the error and continues, so that it still reaches DeepSpeed's barriers. Afterwards all
ranks compare their errors.
"""

from collections.abc import Collection
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from torch.serialization import get_crc32_options, set_crc32_options

from bigchem.train.checkpoint.block_hashes import BlockHash
from bigchem.train.checkpoint.hashed_file import HashedFile
from bigchem.train.checkpoint.torch_zip import load_safely


class BigchemCheckpointEngine(CheckpointEngine):  # type: ignore[misc]
    """DeepSpeed's checkpoint engine for one rank.

    masters_apart: names of parameters whose fp32 weights are among the optimizer's states. Model files omit these, so
    that no weight is written twice. direct: see HashedFile. written: {path: (bytes, digest)} since `begin`. error: of
    the first failed write.
    """

    def __init__(self, masters_apart: Collection[str], *, direct: bool = True) -> None:
        super().__init__()
        self._apart, self._direct = frozenset(masters_apart), direct
        self.begin()

    def begin(self) -> None:
        """Clears `written` and `error`."""
        self.written: dict[Path, tuple[int, str]] = {}
        self.error: Exception | None = None

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
        """Writes, hashes and fsyncs a file. Records an error; after one, nothing more is written."""
        if self.error is not None:
            return
        if self._apart and "module" in state_dict:
            retained = {name: value for name, value in state_dict["module"].items() if name not in self._apart}
            state_dict = {**state_dict, "module": retained}
        try:
            with HashedFile(Path(path), BlockHash(), direct=self._direct) as file, _without_crc32():
                torch.save(state_dict, file)  # type: ignore[arg-type]  # it only needs write and flush
            self.written[Path(path)] = (file.size, file.digest)
        except Exception as error:
            self.error = error

    def load(self, path: str, map_location: Any = None) -> dict[str, Any]:
        """A file's content, memory-mapped, on the CPU."""
        return load_safely(Path(path))


@contextmanager
def _without_crc32() -> Any:
    """Switches off torch's CRC-32 of every file: nothing reads it, and sha256 is stronger."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        yield
    finally:
        set_crc32_options(before)
