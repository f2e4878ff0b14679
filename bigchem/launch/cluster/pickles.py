"""submitit's pickles. Reading one runs code, so it must be in a folder that no other user owns."""

import os
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError


class Resubmitted:
    """A callable that submitit runs again after a preemption or a time limit, or after any signal on this machine. It
    then does what is left."""

    def checkpoint(self) -> object:
        """submitit's hook."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def result(file: Path) -> tuple[str, Any]:
    """A task's result: ("success", its value) or ("error", a traceback). UserError if it is another user's."""
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
            hint = "copy what you need into a folder of your own; a pickle can run any code"
            raise UserError("belongs to another user, so its pickles are not read", str(path), hint)
