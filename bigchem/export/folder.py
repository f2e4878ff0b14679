"""The model folder of a run: checks that it is current, and makes it."""

from __future__ import annotations

from pathlib import Path

from bigchem.base import json_file
from bigchem.base.errors import UserError
from bigchem.base.json_file import RecordError
from bigchem.export.consolidate import export
from bigchem.train.checkpoint.best import chosen
from bigchem.train.checkpoint.store import PROOF, Manifest


def is_newest(model_dir: Path, run_dir: Path) -> bool:
    """Whether a model folder is the fp32 export of the run's current best or newest checkpoint."""
    found = chosen(run_dir / "checkpoints")
    if found is None or not (model_dir / PROOF).is_file():
        return False
    try:
        proof = json_file.load_object(model_dir / PROOF)
    except RecordError:  # torn: export again
        return False
    own = proof.get("dtype") == "fp32" and proof.get("ema_loss") is None and not proof.get("averaged")
    return bool(own and proof.get("step") == Manifest.read(found).step)


def model_folder(path: Path) -> Path:
    """A consolidated model's folder: in a run folder its model/, exported again if outdated; else the path itself.
    UserError if there is no model."""
    if (path / "config.toml").is_file():
        if not is_newest(path / "model", path):
            export(path, path / "model", overwrite=True)
        return path / "model"
    hint = "give a run folder, or a folder made by bigchem export"
    if not path.is_dir():
        raise UserError("a file, not a folder" if path.exists() else "no such folder", str(path), hint)
    if not (path / "config.json").is_file():
        raise UserError("no model here: config.json is missing", str(path), hint)
    return path
