"""Metrics of action sequences written as text: `ADD water (5 mL); STIR for 1 h.` (Vaucher et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

Floats = NDArray[np.float64]


def tokens(text: str) -> list[str]:
    """Split at white space, as paragraph2actions does for BLEU."""
    return text.split()


def exact(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """1 where the two texts are the same but for white space around them: [pairs]."""
    pairs = zip(references, predictions, strict=True)
    return np.array([reference.strip() == prediction.strip() for reference, prediction in pairs], dtype=np.float64)


def similarity(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """1 - Levenshtein distance / length of the longer text, over characters, in [0, 1]; two empty texts: 1. [pairs]"""
    return process.cpdist(
        [reference.strip() for reference in references],
        [prediction.strip() for prediction in predictions],
        scorer=Levenshtein.normalized_similarity,
        dtype=np.float64,
    )
