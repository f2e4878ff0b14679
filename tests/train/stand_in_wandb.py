"""A stand-in for wandb, which writes what it is given into the run folder. A copy is called wandb.py."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Settings = SimpleNamespace


class Artifact:
    def __init__(self, name: str, type: str, metadata: dict[str, Any]) -> None:
        self.said = {"artifact": name, **metadata}

    def add_reference(self, uri: str, checksum: bool) -> None:
        self.said |= {"uri": uri, "checksum": checksum}


class Run:
    def __init__(self, path: Path, given: dict[str, Any]) -> None:
        self.file, self.step, self.id = path.open("a"), 0, given["id"]
        self.summary = SimpleNamespace(update=self.write)
        about = {key: given[key] for key in ("project", "name", "id", "resume")}
        self.write({**about, "lr": given["config"]["optimizer.lr"]})

    def write(self, value: dict[str, Any]) -> None:
        self.file.write(json.dumps(value) + "\n")

    def log(self, values: dict[str, float], step: int) -> None:
        self.step = step
        self.write({"step": step, **values})

    def log_artifact(self, artifact: Artifact, aliases: list[str]) -> None:
        self.write({**artifact.said, "aliases": aliases})

    def finish(self, exit_code: int) -> None:
        self.write({"exit code": exit_code})
        self.file.close()


def init(**given: Any) -> Run:
    return Run(Path(given["dir"]) / "wandb.jsonl", given)


def teardown() -> None:
    """There is no process to end."""
