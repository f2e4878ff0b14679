"""ledger/rank<N>.jsonl: which examples each rank fed to its engine in each step, to compare runs.

A run that was killed and resumed, on any number of ranks, has the ledger of an uninterrupted one: the same keys per
step over all ranks together.

On a full disk training continues and rows wait in memory. Until they are written an empty file
rank<N>.lacks_from_<step> marks the gap, and `read` refuses, as it does for rows that a power cut damaged.
"""

from contextlib import suppress
from pathlib import Path

from bigchem.base import jsonl
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.data.loader import LoadedStep, Loader
from bigchem.run.log_files import Rows
from bigchem.train.collectives import on_rank0


class Ledger:
    """One rank's ledger, if train.ledger is set. Construction is collective. step: steps done; later rows are cut."""

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
            with suppress(OSError):  # retried with every row: a disk may have room for a name but not for rows
                self._mark.touch()
        elif self._mark is not None and not self._rows.lost:
            self._mark.unlink(missing_ok=True)
            self._mark = None


def cut_back(folder: Path, step: int) -> None:
    """Removes rows after `step` steps, and damaged lines, from all ranks' files, including those of a larger former
    world. If a damaged line may belong to a step up to `step`, a mark file says from which step on rows are missing."""
    folder.mkdir(exist_ok=True)
    for mark in folder.glob("rank*.lacks_from_*"):
        number = mark.name.rpartition("_")[2]
        if number.isdecimal() and int(number) > step:
            mark.unlink()
    for path in folder.glob("rank*.jsonl"):
        last_intact, needs = 0, {"step": int, "keys": list}
        for line in jsonl.lines(path, needs):
            if line.row is None:
                break
            last_intact = line.row["step"]
        if jsonl.repair(path, lambda row: row["step"] <= step, needs) and last_intact < step:
            path.with_suffix(f".lacks_from_{last_intact + 1}").touch()


def read(run_dir: Path) -> dict[int, list[str]]:
    """Sorted keys of each step over all ranks, by step number from 1. UserError if rows are missing or damaged: a
    comparison would be wrong."""
    if marks := sorted(path.name for path in (run_dir / "ledger").glob("rank*.lacks_from_*")):
        what = f"incomplete: the disk was full or a power cut damaged it: {', '.join(marks)}"
        raise UserError(what, str(run_dir / "ledger"), "compare runs by their metrics, or train the run again")
    found: dict[int, list[str]] = {}
    for path in sorted((run_dir / "ledger").glob("rank*.jsonl")):
        contents = jsonl.read(path, {"step": int, "keys": list})
        if contents.damage is not None:
            raise UserError(contents.damage, str(path), "`bigchem resume` cuts off what follows the last checkpoint")
        for row in contents.rows:
            found.setdefault(row["step"], []).extend(map(str, row["keys"]))
    return {step: sorted(keys) for step, keys in sorted(found.items())}
