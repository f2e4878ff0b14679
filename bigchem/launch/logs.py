"""`bigchem logs`: a rank's log, its end or as it grows, across requeues."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import BinaryIO

from bigchem.errors import UserError
from bigchem.launch.status import RunStatus, pause_s, run_status
from bigchem.train import ownership

POLL_S = 0.2
BLOCK = 65536


def show(run_dir: Path, out: BinaryIO, *, rank: int = 0, lines: int = 20, follow: bool = False) -> None:
    """Writes the last lines of a rank's log. follow: and what comes, until the run is over; a run that has no log yet
    is waited for.

    A job that ended before its ranks had logs has left its words with submitit: then those are shown.
    """
    if not (run_dir / "config.toml").is_file():
        raise UserError("no run folder: it has no config.toml", str(run_dir), "bigchem status lists runs")
    path = run_dir / "logs" / f"rank{rank}.log"
    _refuse_rank(run_dir, path, rank)
    status = run_status(run_dir)
    while not path.is_file():
        if not follow or not _goes_on(status):
            _job_output(run_dir, status, rank, out, lines)
            return
        _say(f"{status.run} is {status.state}: no log yet, waiting" + (f" ({status.reason})" if status.reason else ""))
        while not path.is_file() and _goes_on(status):
            time.sleep(pause_s(run_dir))
            status = run_status(run_dir)
    with path.open("rb") as file:
        file.seek(start_of(file, lines))
        _copy(file, out)
        if follow:
            status = _follow(file, out, run_dir)
            reason = f": {status.reason}" if status.reason else ""
            _say(f"{status.run} is {status.state}, {status.step}/{status.steps}{reason}")


def _follow(file: BinaryIO, out: BinaryIO, run_dir: Path) -> RunStatus:
    status, asked = run_status(run_dir), time.monotonic()
    while _goes_on(status):
        time.sleep(POLL_S)
        _copy(file, out)
        if time.monotonic() - asked > pause_s(run_dir):
            status, asked = run_status(run_dir), time.monotonic()
    _copy(file, out)
    return status


def start_of(file: BinaryIO, lines: int) -> int:
    """Where the last so many lines of a file begin. Reads from its end."""
    end = file.seek(0, 2)
    found, at = b"", end
    while at > 0 and found.count(b"\n") <= lines:
        at = max(0, at - BLOCK)
        file.seek(at)
        found = file.read(end - at)
    if lines <= 0:
        return end
    kept = found.splitlines(keepends=True)[-lines:]
    return end - sum(map(len, kept))


def _copy(file: BinaryIO, out: BinaryIO) -> None:
    while block := file.read(BLOCK):
        out.write(block)
    out.flush()


def _goes_on(status: RunStatus) -> bool:
    """Where that cannot be known it may."""
    return status.active is not False


def _refuse_rank(run_dir: Path, path: Path, rank: int) -> None:
    """A rank that the run has not; one of its ranks may have a log later than the others."""
    logs = [int(p.stem.removeprefix("rank")) for p in path.parent.glob("rank*.log")]
    ranks = max(
        (owner.world_size or 0 if (owner := ownership.read(run_dir)) else 0), *(1 + number for number in logs), 0
    )
    if ranks and rank >= ranks:
        raise UserError(f"no log of rank {rank}", str(path.parent), f"there are those of ranks 0 to {ranks - 1}")


def _job_output(run_dir: Path, status: RunStatus, rank: int, out: BinaryIO, lines: int) -> None:
    """What a job has said outside of its ranks' logs."""
    owner = ownership.read(run_dir)
    folder = Path(owner.output) if owner and owner.output else run_dir / "submitit" / str(status.job)
    files = [p for task in (rank, 0) for p in sorted(folder.glob(f"{status.job}_{task}_log.*")) if p.stat().st_size]
    if not files:
        hint = "-f waits for it" if status.active else "bigchem status says what became of it"
        raise UserError(f"no log yet: the run is {status.state}", str(run_dir), hint)
    for path in dict.fromkeys(files):
        _say(f"{path}:")
        with path.open("rb") as file:
            file.seek(start_of(file, lines))
            _copy(file, out)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
