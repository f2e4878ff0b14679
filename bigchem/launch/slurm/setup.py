"""A profile's setup lines in the batch script: the first to fail stops the job, and the run records which."""

import shlex
import subprocess
from collections.abc import Sequence

from bigchem.base.errors import UserError

CHECK_S = 10.0


def guarded(lines: Sequence[str], report: str) -> list[str]:
    """Bash lines that run `lines` and exit with 2 if one fails. report: a command that records it, called with the exit
    code and the line.

    Only a line's own exit status counts: under `set -e`, scripts that lines source, such as those that activate an
    environment, would end a job for any command in them.
    """
    if not lines:
        return []
    report = f'{report} "$1" "$2" || true'
    stop = f'setup_failed() {{ echo "setup failed (exit code $1): $2" >&2; {report}; exit 2; }}'
    found = [_guarded(line) for line in lines]
    return [stop, *found, "set +eu"]  # a line's own `set -e` would keep the job from being requeued


def _guarded(line: str) -> str:
    if not line.strip() or line.lstrip().startswith("#"):
        return line
    return f"{{ {line}\n}} || setup_failed $? {shlex.quote(line)}"


def check(lines: Sequence[str]) -> None:
    """UserError for a line that is not a complete bash command: the job would end at it."""
    for line in lines:
        text = _guarded(line)
        try:
            result = subprocess.run(
                ["bash", "-n", "-c", text], capture_output=True, text=True, timeout=CHECK_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return  # no bash here: the job will show
        if result.returncode:
            errors = result.stderr.strip().splitlines() or ["bash cannot read it"]
            what = f"setup: '{line}' is not a complete command: {errors[0].partition(': line ')[2] or errors[0]}"
            raise UserError(what, "cluster profile", "put a command of several lines into one string")
