"""What the page and the HTTP API ask of a model: untrusted requests, read, bounded, predicted.

A request that gets no prediction is refused in words that anyone may see: no folder, no traceback.
"""

import sys
import time
import traceback
from collections.abc import Mapping, Sequence

from bigchem.chemistry import NotationError, Reading, read
from bigchem.config import EvaluateConfig
from bigchem.evaluate.generation.label_scores import has_labels
from bigchem.evaluate.generation.predictor import Prediction, Predictor
from bigchem.tasks import CHEMISTRY, Task

MOST_CHARACTERS = 4000
"""Characters of an input: ten times a paragraph of a procedure. The model sees as many tokens as in training."""
MOST_BEAMS, MOST_SHOWN, MOST_TOKENS = 20, 10, 256
LIMIT_S = 120.0
"""Time limit of a request's predictions."""
AT_ONCE, WAITING = 4, 32
"""Concurrent requests, so that a slow one does not block the next; and the length of the queue."""


class RefusedError(Exception):
    """A request that gets no prediction; the text says why. status: of HTTP."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def read_source(task: Task, text: str) -> Reading:
    """An input as the task reads it, repaired as in training. RefusedError if it is too long or not of its kind."""
    if len(text) > MOST_CHARACTERS:
        raise RefusedError(413, f"{len(text):,} characters: the limit is {MOST_CHARACTERS:,}.")
    try:
        return read(text, task.source_domain, names=True)
    except NotationError as error:
        kind = "SMILES" if task.source_domain in CHEMISTRY else "a text"
        raise RefusedError(400, f"Not {kind}: {error}.") from None


def predict(
    predictor: Predictor, task: Task, records: Sequence[Mapping[str, str]], beams: int, count: int
) -> tuple[list[list[Prediction]], list[list[float]]]:
    """The `count` best outputs for the `source` of each record, and label_scores if the task has labels, else nothing.

    records: with the columns that the task's prompts take. RefusedError if it takes too long, or fails.
    """
    config = EvaluateConfig(num_beams=max(beams, count), num_return=count, max_new_tokens=MOST_TOKENS)
    texts, deadline = [record["source"] for record in records], time.monotonic() + LIMIT_S
    try:
        predictions = predictor.predict(task.name, texts, config, deadline=deadline, fields=records)
        scores = predictor.label_scores(task.name, texts, config, fields=records) if has_labels(task) else []
    except TimeoutError:
        raise RefusedError(504, f"No answer within {LIMIT_S:.0f} s: try fewer beams, or a shorter input.") from None
    except Exception:  # the message may name folders: only the server's log gets it
        traceback.print_exc(file=sys.stderr)
        raise RefusedError(500, "The prediction failed; the server's log says why.") from None
    return predictions, scores
