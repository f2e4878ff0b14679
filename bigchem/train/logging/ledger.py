"""ledger/rank<N>.jsonl: which examples each rank really fed to its engine in which step, to compare runs with.

A run that was killed and resumed, on any number of ranks, has the ledger of an uninterrupted one: the same keys in each
step, over all ranks together.

Where a disk is full, training goes on and rows wait for room. Until they are written an empty file
rank<N>.lacks_from_<step> says so, and `read` refuses; it does the same for rows that a power cut has damaged.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from bigchem.base import jsonl
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.loader import LoadedStep, Loader
from bigchem.run.log_files import Rows
from bigchem.train.collectives import on_rank0


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
    """Removes what lies after `step` steps from all ranks' files, also those of a former larger world, and damaged
    lines. Where one of these may have been of a step up to `step`, the file's mark says from which on rows are missing.
    """
    folder.mkdir(exist_ok=True)
    for mark in folder.glob("rank*.lacks_from_*"):
        number = mark.name.rpartition("_")[2]
        if number.isdecimal() and int(number) > step:
            mark.unlink()
    for path in folder.glob("rank*.jsonl"):
        before, needs = 0, {"step": int, "keys": list}
        for line in jsonl.lines(path, needs):
            if line.row is None:
                break
            before = line.row["step"]
        if jsonl.repair(path, lambda row: row["step"] <= step, needs) and before < step:
            path.with_suffix(f".lacks_from_{before + 1}").touch()


def read(run_dir: Path) -> dict[int, list[str]]:
    """Keys of each step over all ranks, sorted, by the step's number from 1. UserError where rows are missing or
    damaged: a comparison with it would be wrong."""
    if marks := sorted(path.name for path in (run_dir / "ledger").glob("rank*.lacks_from_*")):
        what = f"incomplete, the disk was full or a power cut has damaged it: {', '.join(marks)}"
        raise UserError(what, str(run_dir / "ledger"), "compare runs by their metrics, or train the run anew")
    found: dict[int, list[str]] = {}
    for path in sorted((run_dir / "ledger").glob("rank*.jsonl")):
        contents = jsonl.read(path, {"step": int, "keys": list})
        if contents.damage is not None:
            raise UserError(contents.damage, str(path), "`bigchem resume` cuts off what lies after the last checkpoint")
        for row in contents.rows:
            found.setdefault(row["step"], []).extend(map(str, row["keys"]))
    return {step: sorted(keys) for step, keys in sorted(found.items())}
