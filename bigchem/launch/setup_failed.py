"""What the batch script runs when a setup line fails: it records that in the run folder."""

import os
import sys
from pathlib import Path

from bigchem.launch.cluster import pickles
from bigchem.launch.runs.owner import job_id, of_job
from bigchem.run.lifecycle import End, Writer


def main(folder: str, code: int, line: str) -> None:
    """Records the failure in the run folder. folder: submitit's, with the submitted callable. A task of a build or an
    evaluation has no run folder; its log has the failure already."""
    from bigchem.launch.job import Job

    job = pickles.submitted(folder, job_id(os.environ))
    if isinstance(job, Job):
        reason = f"setup failed (exit code {code}): {line}"
        of_job(Path(job.run_dir), os.environ).end(Writer.BATCH, End.NOT_LAUNCHED, reason)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
