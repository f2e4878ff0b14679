"""A stage's process: `python -m bigchem.bench.gpu_check.stage NAME OUT SECONDS CHECK [--dry-run]`, started by check.py.

CHECK: the check's process id, with which this process ends; 0: none.
"""

import os
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from bigchem.bench.gpu_check.runner import end_descendants, end_family

STAGES = {
    "versions": "basics.versions",
    "kernels": "basics.kernels",
    "smallest": "basics.smallest",
    "profile": "step_profile.profile",
    "steps": "comparisons.steps",
    "attention": "comparisons.attention",
    "tiles": "comparisons.tiles",
    "zero": "with_deepspeed.zero",
    "offload": "with_deepspeed.offload",
    "checkpoint": "with_deepspeed.checkpoint",
}
"""module.function; imported when its stage runs. smallest is what kernels runs under compute-sanitizer."""


def main(arguments: Sequence[str]) -> None:
    """Runs a stage, and writes what it found, also if it fails."""
    name, out, seconds, check, *flags = arguments
    if int(check):  # before torch, whose import takes seconds
        threading.Thread(target=_end_with, args=(int(check),), daemon=True).start()
    end, dry_run = time.monotonic() + float(seconds), flags == ["--dry-run"]
    from bigchem.bench.common import Deadline, Report, machine, pick_device
    from bigchem.bench.gpu_check.work import Work

    device = pick_device("cpu" if dry_run else "cuda")
    work = Work(device, dry_run, Deadline(end - time.monotonic()), Report(machine(device)), Path(out))
    module, function = STAGES[name].split(".")
    try:
        getattr(import_module(f"bigchem.bench.gpu_check.{module}"), function)(work)
    finally:
        work.save()


def _end_with(check: int) -> None:
    """Ends this process and what it has started once the check has ended, which may have been killed."""
    while os.getppid() == check:
        time.sleep(0.5)
    end_family(os.getpid())


if __name__ == "__main__":
    from bigchem.base.errors import UserError

    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.stdout.flush()
    end_descendants(os.getpid())
    os._exit(0)  # without Python's teardown, which takes seconds with torch loaded
