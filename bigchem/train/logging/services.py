"""Tracking services beside TensorBoard: Weights & Biases (train.wandb) and MLflow (train.mlflow). Rank 0 only.

Each service works in a thread of its own, so that training never waits for a network. The first failure is printed and
becomes an event; all are counted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.base.installed.packages import install_extra
from bigchem.base.masking import mask, mask_values
from bigchem.base.printable import number_of, printable
from bigchem.config import RunConfig
from bigchem.run.log_files import record_event
from bigchem.train.logging.hparams import fields_of

CLOSE_S, CLOSE_FAILED_S = 30.0, 10.0
"""How long a run waits at its end for what a service has not sent yet; less if it fails, as other ranks then wait."""
MLFLOW_URI = "MLFLOW_TRACKING_URI"


class Service(Protocol):
    """A run's record at a service."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values by TensorBoard's names."""

    def checkpoint(self, step: int, folder: Path) -> None:
        """Refers to a published checkpoint; nothing is uploaded."""

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """Adds the scores of the model after `step` steps, by SPLIT/TASK/METRIC."""

    def close(self, *, failed: bool) -> None:
        """Ends the record, as failed or finished."""


class Services:
    """The services that a run's configuration names; without any, nothing happens. Calls return at once."""

    def __init__(self, config: RunConfig) -> None:
        self._workers = [_Worker(name, make, config.run_dir) for name, make in _named(config).items()]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """See Service."""
        self._each(lambda service: service.log(step, values))

    def checkpoint(self, step: int, folder: Path) -> None:
        """See Service."""
        self._each(lambda service: service.checkpoint(step, folder))

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """See Service."""
        self._each(lambda service: service.scores(step, values))

    def close(self, *, failed: bool) -> None:
        """Waits for what is not sent yet, at most CLOSE_S, and says what is lost."""
        self._each(lambda service: service.close(failed=failed))
        for worker in self._workers:
            worker.join(CLOSE_FAILED_S if failed else CLOSE_S)

    def _each(self, call: Callable[[Service], None]) -> None:
        for worker in self._workers:
            worker.calls.put(call)


class _Worker:
    """A service's thread, and its calls in their order."""

    def __init__(self, name: str, make: Callable[[Callable[[str], None]], Service], run_dir: Path) -> None:
        self._name, self._make, self._run_dir = name, make, run_dir
        self.calls: SimpleQueue[Callable[[Service], None] | None] = SimpleQueue()
        self._lost = 0
        self._warned = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def join(self, seconds: float) -> None:
        self.calls.put(None)
        self._thread.join(seconds)
        left = max(0, self.calls.qsize() - 1) if self._thread.is_alive() else 0
        if self._thread.is_alive():
            self._warn(f"not done after {seconds:.0f} s", "left behind")
        if self._lost + left:
            print(f"{self._name}: {number_of('call', self._lost + left)} did not reach it", flush=True)

    def _work(self) -> None:
        service: Service | None = None
        try:
            service = self._make(self._warn)
        except Exception as error:  # whatever it is, training continues
            self._warn(_line(error))
        while (call := self.calls.get()) is not None:
            try:
                if service is None:
                    raise ConnectionError
                call(service)
            except Exception as error:
                self._lost += 1
                self._warn(_line(error))

    def _warn(self, what: str, action: str = "training continues") -> None:
        """Reports the first failure."""
        if not self._warned:
            self._warned, what = True, printable(mask(what), limit=300)
            print(f"{self._name}: {what}; {action}", flush=True)
            record_event(self._run_dir, 0, self._name, action, what)


def check_services(config: RunConfig) -> None:
    """UserError if a service is named whose package, or whose server's address, is missing."""
    for name in ("wandb", "mlflow"):
        if getattr(config.train, name) is not None and find_spec(name) is None:
            raise UserError(f"{name} is not installed", f"train.{name}", f"{install_extra(name)}, or remove the field")
    if config.train.mlflow is not None and not os.environ.get(MLFLOW_URI):
        raise UserError(f"{MLFLOW_URI} is not set", "train.mlflow", f"export {MLFLOW_URI}=https://your-server")


def _named(config: RunConfig) -> dict[str, Callable[[Callable[[str], None]], Service]]:
    """How to open each service, given how to warn."""
    found: dict[str, Callable[[Callable[[str], None]], Service]] = {}
    if config.train.wandb is not None:
        from bigchem.train.logging.wandb_run import WandbRun

        found["wandb"] = partial(WandbRun, config, config.train.wandb, _settings(config))
    if config.train.mlflow is not None:
        from bigchem.train.logging.mlflow_run import MlflowRun

        found["mlflow"] = partial(MlflowRun, config, config.train.mlflow, _settings(config))
    return found


def _settings(config: RunConfig) -> dict[str, Any]:
    """Every field of the configuration by its dotted name, and the model's size, with secrets masked."""
    size = {name: value for name, value in fields_of(config).items() if name.endswith("parameters")}
    found: dict[str, Any] = mask_values(toml.flat(config.model_dump(mode="json", exclude_none=True)))
    return found | size


def _line(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {error}".strip(": ")
