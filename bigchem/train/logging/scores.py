"""A run's scores, which an evaluation adds to what TensorBoard and tracking services show of the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigchem.config import RunConfig
from bigchem.train.logging.hparams import add_scores, scores_of
from bigchem.train.logging.services import Services


def share_scores(config: RunConfig, run_dir: Path, results: Mapping[str, Any]) -> None:
    """Adds the scores of a table as in results.json. A failure is printed and costs nothing else.

    config: of the run, whose folder may have been moved to run_dir.
    """
    try:
        add_scores(run_dir, results)
    except OSError as error:
        print(f"the scores are not in {run_dir / 'tensorboard'}: {error.strerror or error}", flush=True)
    services = Services(config.model_copy(update={"runs": str(run_dir.parent), "name": run_dir.name}))
    services.scores(int(results.get("step", 0)), scores_of(results))
    services.close(failed=False)
