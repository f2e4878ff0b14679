"""The output of a job's batch script and srun, by start."""

from contextlib import suppress
from pathlib import Path

START = "bigchem: start "
"""The batch script's first line, followed by the restart's number: each start appends to the same file."""
TAIL = 65536
"""Bytes read from the end of the file."""


def error_file(run_dir: Path, job: str) -> Path:
    """The batch script's stderr of a job that `submit` submitted."""
    return run_dir / "submitit" / job / f"{job}_0_log.err"


def since_start(file: Path | None, restart: int | None = None) -> list[str]:
    """The lines of one start; of the last one if no number is given. Empty if the file cannot be read."""
    lines: list[str] = []
    if file is None:
        return lines
    with suppress(OSError), file.open("rb") as handle:
        handle.seek(max(0, file.stat().st_size - TAIL))
        lines = handle.read().decode(errors="replace").splitlines()
    return of_start(lines, restart)


def of_start(lines: list[str], restart: int | None = None) -> list[str]:
    """The same, from a file's lines. Pure."""
    starts = [number for number, line in enumerate(lines) if line.startswith(START)]
    if restart is None:
        return lines[starts[-1] if starts else 0 :]
    begin = next((n for n in reversed(starts) if lines[n] == f"{START}{restart}"), None)
    if begin is None:
        return []
    return lines[begin : next((n for n in starts if n > begin), len(lines))]
