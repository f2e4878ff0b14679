"""submitit's pickles: reading one runs code, so one is read only in a folder that nobody else owns."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError


def result(file: Path) -> tuple[str, Any]:
    """What a task has left: ("success", its value) or ("error", a traceback). UserError if it is another user's."""
    from submitit.core.utils import pickle_load

    refuse_others(file)
    outcome, value = pickle_load(file)
    return str(outcome), value


def submitted(folder: str, job: str) -> Any:
    """The callable that was submitted as a job. UserError if it is another user's."""
    from submitit.core.utils import DelayedSubmission, JobPaths

    file = JobPaths(folder, job).submitted_pickle
    refuse_others(file)
    return DelayedSubmission.load(file).function


def refuse_others(file: Path) -> None:
    """UserError unless a file and its folder belong to this user, or to root."""
    for path in (file, file.parent):
        if path.stat().st_uid not in (os.geteuid(), 0):
            hint = "copy what you need of it into a folder of your own; a pickle can hold any program"
            raise UserError("belongs to another user, so its pickles are not read", str(path), hint)
