"""`bigchem logs`: the last lines of one rank's or all ranks' logs, or the logs as they grow, across requeues."""

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from bigchem.base.errors import UserError
from bigchem.launch.runs.merged_logs import BLOCK, Merged, start_of
from bigchem.launch.runs.status import RunStatus, pause_s, run_status
from bigchem.run import ownership
from bigchem.run.folder import not_a_run

POLL_S = 0.2


def show(run_dir: Path, out: BinaryIO, *, rank: int | None = 0, lines: int = 20, follow: bool = False) -> None:
    """Writes the last lines of a rank's log; rank None: of all ranks' logs, merged by time. follow: and new lines until
    the run is over, waiting for a log if there is none yet.

    If a job ended before its ranks had logs, shows the output that submitit captured.
    """
    if not (run_dir / "config.toml").is_file():
        raise not_a_run(run_dir, "bigchem status lists runs")
    _refuse_rank(run_dir, rank or 0)
    if not _wait_for_log(run_dir, rank, follow=follow):
        _job_output(run_dir, run_status(run_dir), rank or 0, out, lines)
    elif rank is None:
        _merged(run_dir, out, lines, follow=follow)
    else:
        with (run_dir / "logs" / f"rank{rank}.log").open("rb") as file:
            file.seek(start_of(file, lines))
            _copy(file, out)
            if follow:
                _until_over(run_dir, lambda over: _copy(file, out))


def _merged(run_dir: Path, out: BinaryIO, lines: int, *, follow: bool) -> None:
    def write(found: Iterable[bytes]) -> None:
        out.writelines(found)
        out.flush()

    merged = Merged(run_dir / "logs")
    write(merged.last(lines, follow=follow))
    if follow:
        _until_over(run_dir, lambda over: write(merged.grown(over=over)))


def _wait_for_log(run_dir: Path, rank: int | None, *, follow: bool) -> bool:
    """Whether there is a log; with follow, once the run has begun to write one or is over."""

    def there() -> bool:
        return any((run_dir / "logs").glob("rank*.log" if rank is None else f"rank{rank}.log"))

    if there() or not follow:
        return there()
    status = run_status(run_dir)
    if _may_run(status):
        _say(f"{status.run} is {status.state}: no log yet, waiting" + (f" ({status.reason})" if status.reason else ""))
    while not there() and _may_run(status):
        time.sleep(pause_s(run_dir))
        status = run_status(run_dir)
    return there()


def _until_over(run_dir: Path, copy: Callable[[bool], None]) -> None:
    """Copies new lines until the run is over, then reports how it ended. copy: its last call has True."""
    status, asked = run_status(run_dir), time.monotonic()
    while _may_run(status):
        time.sleep(POLL_S)
        copy(False)
        if time.monotonic() - asked > pause_s(run_dir):
            status, asked = run_status(run_dir), time.monotonic()
    copy(True)
    reason = f": {status.reason}" if status.reason else ""
    _say(f"{status.run} is {status.state}, {status.step}/{status.steps}{reason}")


def _copy(file: BinaryIO, out: BinaryIO) -> None:
    while block := file.read(BLOCK):
        out.write(block)
    out.flush()


def _may_run(status: RunStatus) -> bool:
    """Whether the run may still be active."""
    return status.active is not False


def _refuse_rank(run_dir: Path, rank: int) -> None:
    """UserError for a rank that the run does not have. Its ranks' logs need not all exist yet."""
    folder = run_dir / "logs"
    logs = [int(p.stem.removeprefix("rank")) for p in folder.glob("rank*.log")]
    ranks = max(
        (owner.world_size or 0 if (owner := ownership.read(run_dir)) else 0), *(1 + number for number in logs), 0
    )
    if ranks and rank >= ranks:
        raise UserError(f"no log of rank {rank}", str(folder), f"the run has ranks 0 to {ranks - 1}")


def _job_output(run_dir: Path, status: RunStatus, rank: int, out: BinaryIO, lines: int) -> None:
    """Shows a job's output outside its ranks' logs."""
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
