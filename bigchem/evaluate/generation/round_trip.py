"""The round trip of retrosynthesis: a forward model's products of predicted reactants."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

from bigchem.base.progress import Progress
from bigchem.config import EvaluateConfig
from bigchem.evaluate.generation.generate import read_lines

ROUND_TRIP = {"source": str, "prediction": str}
"""Keys of a line of the file."""
_AT_ONCE = 256
"""Inputs between writes to the file: a kill loses no more."""


def products(
    model_dir: Path,
    task: str,
    ranked: Sequence[Sequence[str]],
    config: EvaluateConfig,
    file: Path | None,
    progress: Progress,
) -> list[list[str]]:
    """A forward model's best prediction for a task, with config's beams, for each text in the lists of reactants.

    file, if given, keeps them for the next call; it must belong to this model, this task and these settings. Equal
    texts are predicted once.
    """
    known = {} if file is None else {line["source"]: line["prediction"] for line in read_lines(file, ROUND_TRIP)}
    todo = [text for text in dict.fromkeys(chain.from_iterable(ranked)) if text not in known]
    if todo:
        from bigchem.evaluate.generation.predictor import Predictor

        predictor, best = Predictor(model_dir, precision=config.precision), config.model_copy(update={"num_return": 1})
        quiet = Progress(quiet=True)
        if cut := predictor.num_cut(task, todo):
            what = f"{cut:,} of {len(todo):,} predicted lists of reactants"
            progress.say(f"forward model, {task}: {what} cut at {predictor.max_source_tokens} tokens")
        todo.sort(key=len, reverse=True)
        opened = nullcontext() if file is None else file.open("a", encoding="utf-8")
        with opened as out, progress.bar("forward model", len(todo)) as bar:
            for start in range(0, len(todo), _AT_ONCE):
                part = todo[start : start + _AT_ONCE]
                for text, found in zip(part, predictor.predict(task, part, best, quiet), strict=True):
                    known[text] = found[0].text
                    if out is not None:
                        line = {"source": text, "prediction": found[0].text}
                        out.write(json.dumps(line, ensure_ascii=False) + "\n")
                if out is not None:
                    out.flush()
                bar.advance(len(part))
    return [[known[text] for text in texts] for texts in ranked]
