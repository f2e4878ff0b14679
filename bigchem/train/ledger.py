"""ledger/rank<N>.jsonl: which examples each rank really fed to its engine in which step, to compare runs with.

A run that was killed and resumed, on any number of ranks, has the ledger of an uninterrupted one: the same keys in each
step, over all ranks together.

Where a disk is full, training goes on and rows wait for room. Until they are written an empty file
rank<N>.lacks_from_<step> says so, and `read` refuses.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from bigchem.config import RunConfig
from bigchem.data.loader import LoadedStep, Loader
from bigchem.errors import UserError
from bigchem.train import rows
from bigchem.train.ranks import on_rank0
from bigchem.train.rows import Rows


class Ledger:
    """The ledger of one rank, if train.ledger asks for one. Every rank makes it; step: steps done, later rows go."""

    def __init__(self, config: RunConfig, rank: int, step: int) -> None:
        folder = config.run_dir / "ledger"
        self._file = folder / f"rank{rank}.jsonl" if config.train.ledger else None
        self._mark: Path | None = None
        if self._file is not None:
            on_rank0(lambda: cut_back(folder, step))
            self._rows = Rows(self._file)

    def add(self, step: int, loader: Loader, loaded: LoadedStep) -> None:
        """Records a step, numbered from 1: the examples of this rank's micro-batches, in the order they were fed."""
        if self._file is None:
            return
        keys = [key for chosen in loaded.chosen for key in loader.keys(loaded.step, chosen)]
        if not self._rows.add({"step": step, "keys": keys}):
            self._mark = self._mark or self._file.with_suffix(f".lacks_from_{step}")
            with suppress(OSError):  # tried again with every row: a disk may have room for a name and none for rows
                self._mark.touch()
        elif self._mark is not None and not self._rows.lost:
            self._mark.unlink(missing_ok=True)
            self._mark = None


def cut_back(folder: Path, step: int) -> None:
    """Removes what lies after `step` steps from all ranks' files, also those of a former larger world, and a line that
    a kill tore."""
    folder.mkdir(exist_ok=True)
    for mark in folder.glob("rank*.lacks_from_*"):
        if int(mark.name.rpartition("_")[2]) > step:
            mark.unlink()
    for path in folder.glob("rank*.jsonl"):
        rows.cut_back(path, step)


def read(run_dir: Path) -> dict[int, list[str]]:
    """Keys of each step over all ranks, sorted, by the step's number from 1. UserError where rows are missing, as the
    disk was full."""
    if marks := sorted(path.name for path in (run_dir / "ledger").glob("rank*.lacks_from_*")):
        raise UserError(f"incomplete, the disk was full: {', '.join(marks)}", str(run_dir / "ledger"))
    found: dict[int, list[str]] = {}
    for path in sorted((run_dir / "ledger").glob("rank*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.setdefault(row["step"], []).extend(row["keys"])
    return {step: sorted(keys) for step, keys in sorted(found.items())}
