"""A run's record at the MLflow server that MLFLOW_TRACKING_URI names: one per run folder, for all attempts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bigchem.base import atomic
from bigchem.config import RunConfig

T = TypeVar("T")
BATCH = 100
"""Parameters in a request: MLflow's limit."""


class MlflowRun:
    """The record. Parameters are those of the first attempt: MLflow does not let them change."""

    def __init__(
        self, config: RunConfig, experiment: str, settings: Mapping[str, Any], _warn: Callable[[str], None]
    ) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        file = config.run_dir / "mlflow_id"
        if file.is_file():
            self._id = file.read_text(encoding="utf-8")
            self._client.update_run(self._id, status="RUNNING")
            return
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        tags = {} if config.sweep.name is None else {"sweep": config.sweep.name}
        self._id = self._client.create_run(number, run_name=config.name, tags=tags).info.run_id
        atomic.write_atomically(file, self._id)
        for some in _batches([Param(name, str(value)) for name, value in settings.items()]):
            self._client.log_batch(self._id, params=some)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values, but for those that are not finite, which some servers refuse."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in finite.items()])

    def checkpoint(self, step: int, folder: Path) -> None:
        """Tags the record with the newest checkpoint and its place."""
        self._client.set_tag(self._id, "checkpoint", folder.absolute().as_uri())
        self._client.set_tag(self._id, "checkpoint_step", str(step))

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """Adds scores as values of their step."""
        self.log(step, values)

    def close(self, *, failed: bool) -> None:
        """Ends the record, as failed or finished."""
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


def _batches(items: Sequence[T]) -> Iterator[list[T]]:
    for start in range(0, len(items), BATCH):
        yield list(items[start : start + BATCH])
