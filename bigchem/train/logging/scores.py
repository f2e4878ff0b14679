"""A run's scores, which an evaluation adds to what the run shows in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigchem.train.logging.hparams import add_scores


def share_scores(run_dir: Path, results: Mapping[str, Any]) -> None:
    """Adds the scores of a table as in results.json; a failure is printed and costs nothing else."""
    try:
        add_scores(run_dir, results)
    except OSError as error:
        print(f"the scores are not in {run_dir / 'tensorboard'}: {error.strerror or error}", flush=True)
