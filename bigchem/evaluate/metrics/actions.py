"""Metrics of action sequences written as text: `ADD water (5 mL); STIR for 1 h.` (Vaucher et al. 2020)."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

Floats = NDArray[np.float64]

KINDS = (
    *("ADD", "COLLECTLAYER", "CONCENTRATE", "DEGAS", "DRYSOLID", "DRYSOLUTION", "EXTRACT", "FILTER"),
    *("FOLLOWOTHERPROCEDURE", "INVALIDACTION", "MAKESOLUTION", "MICROWAVE", "NOACTION", "OTHERLANGUAGE"),
    *("PARTITION", "PH", "PHASESEPARATION", "PURIFY", "QUENCH", "RECRYSTALLIZE", "REFLUX"),
    *("SETTEMPERATURE", "SONICATE", "STIR", "TRITURATE", "WAIT", "WASH", "YIELD"),
    *("COOL", "DISSOLVE", "DRY", "HEAT", "IRRADIATE", "PRECIPITATE", "RECOVER", "REMOVE"),
)
"""Kinds of action: those of Vaucher et al. 2020, then those that occur only in the machine-made labels of Lowe's
patents."""
WHOLE = "*"
"""Key of matches for whole actions of any kind."""
_NEXT = re.compile(rf";\s+(?=(?:{'|'.join(KINDS)})(?![^\s;.]))")
"""Between two actions: a semicolon before a known kind. Semicolons inside an action, as in names, do not match."""


def tokens(text: str) -> list[str]:
    """Split at white space, as paragraph2actions does for BLEU."""
    return text.split()


def padded(text: str) -> list[str]:
    """tokens, padded with empty ones to the four that BLEU-4 needs.

    Vaucher et al. (2020): otherwise BLEU is 0 for a text of three words, right or wrong.
    """
    found = tokens(text)
    return found + [""] * (4 - len(found))


def exact(references: Sequence[str], predictions: Sequence[str]) -> NDArray[np.bool_]:
    """Whether two texts are equal, surrounding white space ignored: [pairs]."""
    pairs = zip(references, predictions, strict=True)
    return np.array([reference.strip() == prediction.strip() for reference, prediction in pairs], dtype=np.bool_)


def similarity(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """1 - Levenshtein distance / length of the longer text, over characters, in [0, 1]; two empty texts: 1. [pairs]"""
    return process.cpdist(
        [reference.strip() for reference in references],
        [prediction.strip() for prediction in predictions],
        scorer=Levenshtein.normalized_similarity,
        dtype=np.float64,
    )


@dataclass(frozen=True)
class Action:
    """kind: the first word, usually one of KINDS. content: the rest, white space normalised."""

    kind: str
    content: str


def parse(text: str) -> list[Action]:
    """The actions of a text such as `ADD water (5 mL); STIR for 1 h.`, in order; none for an empty text."""
    whole = text.strip().removesuffix(".")
    found = (part.split() for part in _NEXT.split(whole))
    return [Action(words[0].rstrip(";"), " ".join(words[1:])) for words in found if words]


def matches(references: Sequence[str], predictions: Sequence[str]) -> dict[str, Floats]:
    """For each of KINDS and for WHOLE: [pairs, 3] matched, predicted and reference actions.

    Actions match as multisets, in any order: by kind; for WHOLE by kind and content.
    """
    names = [*KINDS, WHOLE]
    counts = np.zeros((len(names), len(references), 3))
    places = {name: place for place, name in enumerate(KINDS)}
    for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        wanted, predicted = parse(reference), parse(prediction)
        asked, made = (Counter(action.kind for action in side) for side in (wanted, predicted))
        for kind in (asked.keys() | made.keys()) & places.keys():
            counts[places[kind], row] = min(made[kind], asked[kind]), made[kind], asked[kind]
        counts[-1, row] = (Counter(predicted) & Counter(wanted)).total(), len(predicted), len(wanted)
    return dict(zip(names, counts, strict=True))
