"""The setup lines of a profile in the batch script: the first one that fails stops the job, and the run says which."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

from bigchem.base.errors import UserError

CHECK_S = 10.0


def guarded(lines: Sequence[str], report: str) -> list[str]:
    """Lines of bash that run `lines`, and end the script with 2 where one fails. report: a command that records it; it
    is given the exit code and the line.

    Only the line's own exit status counts: under `set -e` the scripts that lines source, such as those that activate an
    environment, would end a job for any command in them.
    """
    if not lines:
        return []
    report = f'{report} "$1" "$2" || true'
    stop = f'setup_failed() {{ echo "setup failed (exit code $1): $2" >&2; {report}; exit 2; }}'
    found = [_guarded(line) for line in lines]
    return [stop, *found, "set +eu"]  # a line's own `set -e` would keep the job from being started again


def _guarded(line: str) -> str:
    if not line.strip() or line.lstrip().startswith("#"):
        return line
    return f"{{ {line}\n}} || setup_failed $? {shlex.quote(line)}"


def check(lines: Sequence[str]) -> None:
    """UserError for a line that is no whole command of bash: the job would end at it."""
    for line in lines:
        text = _guarded(line)
        try:
            told = subprocess.run(
                ["bash", "-n", "-c", text], capture_output=True, text=True, timeout=CHECK_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return  # no bash here: the job will tell
        if told.returncode:
            words = told.stderr.strip().splitlines() or ["bash cannot read it"]
            what = f"setup: '{line}' is no whole command: {words[0].partition(': line ')[2] or words[0]}"
            raise UserError(what, "cluster profile", "put a command of several lines into one string")
