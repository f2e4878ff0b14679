"""BERTScore (Zhang et al. 2020) of captions, by its authors' package with RoBERTa-large. Both are optional."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bigchem.base.errors import UserError

Floats = NDArray[np.float64]

LAYER = 17
"""Layer of roberta-large whose embeddings are compared: the package's default."""
_SHAPE = {"model_type": "roberta", "num_hidden_layers": 24, "hidden_size": 1024}
"""Fields of roberta-large's config.json."""
_IN_CACHE = ("FacebookAI/roberta-large", "roberta-large")


def find_roberta() -> Path | None:
    """roberta-large's folder: $BIGCHEM_ROBERTA, else huggingface_hub's cache; None if absent. Downloads nothing.

    UserError if the variable points nowhere, or to another model.
    """
    given = os.environ.get("BIGCHEM_ROBERTA")
    config = Path(given) / "config.json" if given else _cached()
    if config is None:
        return None
    try:
        table = json.loads(config.read_text(encoding="utf-8"))
        shape = {key: table.get(key) for key in _SHAPE}
    except (OSError, ValueError, AttributeError):
        raise UserError("no model here", f"BIGCHEM_ROBERTA={given}", "point it at roberta-large's folder") from None
    if shape != _SHAPE:
        raise UserError("not roberta-large: another model gives other scores", str(config.parent))
    if "t5" in str(config.parent):  # the package chooses the class by the path
        raise UserError("package bert_score loads any path with 't5' in it as a T5", str(config.parent), "rename it")
    return config.parent


def bertscore(references: Sequence[str], predictions: Sequence[str], model: Path) -> Floats:
    """F of each pair of raw texts, 0 if either is empty: [pairs]. Uses the first GPU, if any.

    ImportError without the package bert_score.
    """
    from bert_score import score
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    found = np.zeros(len(references))
    places = [i for i, pair in enumerate(zip(references, predictions, strict=True)) if all(map(str.strip, pair))]
    if places:
        sides = ([side[i] for i in places] for side in (predictions, references))
        found[places] = score(*sides, model_type=str(model), num_layers=LAYER, nthreads=0)[2].numpy()
    return found


def _cached() -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(name, "config.json") for name in _IN_CACHE)
    return next((Path(file) for file in found if isinstance(file, str)), None)
