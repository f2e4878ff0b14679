"""The way back of retrosynthesis: what a forward model makes of predicted reactants."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

from bigchem.base.progress import Progress
from bigchem.config import EvaluateConfig
from bigchem.evaluate.generation.generate import read_lines

ROUND_TRIP = {"source": str, "prediction": str}
"""Keys of each line of the file."""
_AT_ONCE = 256
"""Inputs between two writings of the file: a kill loses no more."""


def products(
    model_dir: Path, ranked: Sequence[Sequence[str]], config: EvaluateConfig, file: Path | None, progress: Progress
) -> list[list[str]]:
    """The best prediction of a forward model for every text of the lists of reactants, by config's beams.

    They are kept in file, if there is one, which has to be of this model and these settings, and are not predicted
    again. Equal texts are predicted once.
    """
    known = {} if file is None else {line["source"]: line["prediction"] for line in read_lines(file, ROUND_TRIP)}
    todo = [text for text in dict.fromkeys(chain.from_iterable(ranked)) if text not in known]
    if todo:
        from bigchem.evaluate.generation.predictor import Predictor

        predictor, best = Predictor(model_dir), config.model_copy(update={"num_return": 1})
        quiet = Progress(quiet=True)
        todo.sort(key=len, reverse=True)
        kept = nullcontext() if file is None else file.open("a", encoding="utf-8")
        with kept as out, progress.bar("forward model", len(todo)) as bar:
            for start in range(0, len(todo), _AT_ONCE):
                part = todo[start : start + _AT_ONCE]
                for text, found in zip(part, predictor.predict("forward", part, best, quiet), strict=True):
                    known[text] = found[0].text
                    if out is not None:
                        line = {"source": text, "prediction": found[0].text}
                        out.write(json.dumps(line, ensure_ascii=False) + "\n")
                if out is not None:
                    out.flush()
                bar.advance(len(part))
    return [[known[text] for text in one] for one in ranked]
