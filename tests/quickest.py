"""How long a command takes, on a machine that others use too."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Sequence


def quickest(command: Sequence[object], times: int = 2) -> tuple[str, float]:
    """Output of a command, and the fewest seconds of processor time that it took: those do not grow with the machine's
    load. Importing torch alone would take two."""
    seconds = []
    for _ in range(times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        told = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return told, min(seconds)
