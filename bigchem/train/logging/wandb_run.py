"""A run's page at Weights & Biases: one id per run folder, so that all attempts continue the same page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from bigchem.base import atomic
from bigchem.config import RunConfig

INIT_S = 30
"""How long to try to reach the server before the page is kept on disk; WANDB_INIT_TIMEOUT overrides it."""


class WandbRun:
    """The page. If the server cannot be reached, it is kept in RUN/wandb for `wandb sync`.

    warn: told why the server cannot be reached.
    """

    def __init__(
        self, config: RunConfig, project: str, settings: Mapping[str, Any], warn: Callable[[str], None]
    ) -> None:
        import wandb

        file = config.run_dir / "wandb_id"
        if not file.is_file():
            atomic.write_atomically(file, uuid4().hex)
        seconds = int(os.environ.get("WANDB_INIT_TIMEOUT", INIT_S))
        about: dict[str, Any] = {
            "project": project,
            "name": config.name,
            "group": config.sweep.name,
            "id": file.read_text(encoding="utf-8"),
            "resume": "allow",
            "dir": str(config.run_dir),
            "config": dict(settings),
            "allow_val_change": True,  # a run may continue with more steps
            "settings": wandb.Settings(init_timeout=seconds),
        }
        self._wandb = wandb
        try:
            self._run = wandb.init(**about)
        except Exception as error:  # no network, no key: whatever it is, the values are kept
            warn(f"{error}: kept in {config.run_dir / 'wandb'} for `wandb sync`")
            wandb.teardown()  # else its service takes the id for one in use
            self._run = wandb.init(**about, mode="offline")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values; those of steps that an earlier attempt has logged are there already, and are the same."""
        if step >= self._run.step:
            self._run.log(dict(values), step=step)

    def checkpoint(self, step: int, folder: Path) -> None:
        """Adds a version of the run's artifact that refers to the folder's files by path, without reading them."""
        artifact = self._wandb.Artifact(f"checkpoint-{self._run.id}", type="model", metadata={"step": step})
        artifact.add_reference(folder.absolute().as_uri(), checksum=False)
        self._run.log_artifact(artifact, aliases=["latest", f"step-{step}"])

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """Adds scores to the page's summary."""
        self._run.summary.update({"scored_step": step, **values})

    def close(self, *, failed: bool) -> None:
        """Ends the page, as failed or finished, and waits for wandb's own process: it writes after `finish` too."""
        self._run.finish(exit_code=int(failed))
        self._wandb.teardown()
