"""What an exported model's folder says of its training, as far as an evaluation needs it."""

from dataclasses import dataclass
from pathlib import Path

from bigchem.base import json_file
from bigchem.base.json_file import Count

FILE = "provenance.json"
"""Written by `sharing.provenance`, which has the whole record."""
MAX_SOURCE_TOKENS = 512
"""Where sources are cut if the folder does not say how long they were in training."""


@dataclass(frozen=True)
class _Data:
    fingerprint: str


@dataclass(frozen=True)
class _Recipe:
    max_source_tokens: Count


@dataclass(frozen=True)
class Trained:
    """data: what the model was trained on. recipe: None if it was not at hand at the export."""

    data: _Data
    recipe: _Recipe | None = None


def trained(model_dir: Path) -> Trained | None:
    """The record in a model's folder; None without one, as in folders of other programs. RecordError if it is
    damaged."""
    file = model_dir / FILE
    if not file.is_file():
        return None
    hint = "bigchem export makes the folder anew"
    return json_file.as_kind(Trained, json_file.load(file, hint=hint), str(file), hint=hint)


def max_source_tokens(model_dir: Path) -> int:
    """The longest source of a model's training, MAX_SOURCE_TOKENS if its folder does not say. Longer ones are cut."""
    found = trained(model_dir)
    return MAX_SOURCE_TOKENS if found is None or found.recipe is None else found.recipe.max_source_tokens
