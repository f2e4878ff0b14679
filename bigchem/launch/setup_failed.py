"""What the batch script runs where a setup line has failed: it says so in the run folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bigchem.launch.after import job_id
from bigchem.train.state import progress, read_state, write_state


def main(folder: str, code: int, line: str) -> None:
    """Says so in the run folder. folder: of submitit, which holds what was submitted; a task of a build or an
    evaluation has no run folder, and its log says it already."""
    from submitit.core.utils import DelayedSubmission, JobPaths

    from bigchem.launch.job import Job

    job = DelayedSubmission.load(JobPaths(folder, job_id(os.environ)).submitted_pickle).function
    if isinstance(job, Job):
        run_dir = Path(job.run_dir)
        reason = f"setup failed (exit code {code}): {line}"
        write_state(run_dir, "failed", **progress(read_state(run_dir)), reason=reason, code=2)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
