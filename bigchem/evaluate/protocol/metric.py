"""A metric of the protocol, and the metrics and notes that several tasks share."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from bigchem.evaluate.metrics import text
from bigchem.evaluate.metrics.intervals import Statistic, mean_of, ratio_of, share_of
from bigchem.evaluate.protocol.pairs import Pairs, UnavailableError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric of a family of tasks.

    name: the same in every table. definition: pinned id; a change that can change a number needs a new one. meaning:
    what the definition says. compute: raises UnavailableError with a remedy; a bare number (no interval) where the
    metric is no sum over examples; resampled is then False. needs: n/a unless some k-best list is at least this long.
    undefined: the note where no example counts. by_class: also reported for each class of examples. lowest, highest:
    the values it can have.
    """

    name: str
    definition: str
    meaning: str
    compute: Callable[[Pairs], Statistic | float]
    higher_is_better: bool = True
    needs: int = 1
    undefined: str = "undefined: no prediction counts"
    by_class: bool = False
    resampled: bool = True
    lowest: float = 0.0
    highest: float = 1.0


def bleu(counts: Floats, order: int) -> Statistic:
    """Corpus BLEU from text.bleu_counts."""
    return Statistic(counts, partial(text.bleu, order=order), np.ones(len(counts), dtype=np.bool_))


def similarity(values: Floats, note: str = "") -> Statistic:
    """The mean of similarities in [0, 1]; NaN: no prediction to compare."""
    return mean_of(values, note, "fraction")


def misses(parses: Floats) -> str:
    """The note about references that do not parse."""
    singular, plural = "reference does not parse and counts as a miss", "references do not parse and count as misses"
    return _counted((parses == 0).sum(), singular, plural)


def without_inchi(columns: dict[str, Floats]) -> str:
    """The note about pairs compared without InChI."""
    reason = "no InChI, compared by canonical SMILES"
    return _counted(columns["without_inchi"].sum(), f"pair has {reason}", f"pairs have {reason}")


def crowded(columns: dict[str, Floats]) -> str:
    """The note about pairs without fingerprints."""
    reason = "left out: a molecule with too many rings or bonds at one place"
    return _counted(columns["crowded"].sum(), f"pair is {reason}", f"pairs are {reason}")


def out_of(where: NDArray[np.bool_], what: str) -> str:
    """The note `3 of 100 WHAT` about the examples `where`; empty if there are none."""
    count = int(np.count_nonzero(where))
    return f"{count} of {where.size} {what}" if count else ""


def noted(statistic: Statistic, note: str) -> Statistic:
    """The statistic with another note."""
    return replace(statistic, note=joined(statistic.note, note))


def joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _counted(count: float, singular: str, plural: str) -> str:
    return f"{int(count)} {singular if count == 1 else plural}" if count else ""


FINGERPRINTS = {
    "maccs": "MACCS keys",
    "rdk": "RDKit path fingerprints (2048 bits, paths of 1 to 7 bonds)",
    "morgan": "Morgan fingerprints (radius 2, counts)",
}


def validity(column: Callable[[Pairs], Floats]) -> Metric:
    meaning = (
        "Share of best predictions that RDKit parses, without white space in them; the empty string is no molecule."
    )
    return Metric("validity", "validity/rdkit-v2", meaning, lambda pairs: share_of(column(pairs) == 1), by_class=True)


def text2mol(script: str) -> Metric:
    """Always n/a. script: MolT5's, which computes it."""

    def missing(_: Pairs) -> NoReturn:
        raise UnavailableError(
            f"needs Text2Mol's weights, which bigchem does not run: MolT5's evaluation/{script} reads MolT5's table"
        )

    meaning = "Mean Text2Mol similarity of molecule and text (Edwards et al. 2021)."
    return Metric("text2mol", "text2mol/molt5-v1", meaning, missing)


CHARACTER_BLEU = Metric(
    "bleu",
    "bleu/molt5-v1",
    "Corpus BLEU-4 over the characters of the SMILES strings, no smoothing.",
    lambda p: bleu(p.character_counts, 4),
)
LEVENSHTEIN = Metric(
    "levenshtein",
    "levenshtein/molt5-v1",
    "Mean Levenshtein distance of the SMILES strings, in characters.",
    lambda p: mean_of(p.distance),
    higher_is_better=False,
    highest=math.inf,
)


def _loss(pairs: Pairs) -> Statistic:
    if pairs.losses is None:
        raise UnavailableError("needs the column loss_and_tokens, which `bigchem evaluate` writes")
    nats, tokens = pairs.losses.T
    return noted(ratio_of(nats, tokens, "number"), f"{int(tokens.sum()):,} target tokens")


LOSS = Metric(
    "loss",
    "loss/token-mean-v1",
    "Mean cross-entropy of the references' tokens, in nats.",
    _loss,
    higher_is_better=False,
    highest=math.inf,
)
"""Of every task, where the losses are known."""
