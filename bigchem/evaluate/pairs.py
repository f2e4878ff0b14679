"""The references and predictions of one task, with what several of its metrics share computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from bigchem.evaluate import actions, molecules, reactions, text
from bigchem.evaluate.pool import over_cores

Floats = NDArray[np.float64]

_SMALL_TEXT = 20_000
"""Fewer texts than this are scored in one process: half a millisecond each; a worker takes a second to import nltk."""


class UnavailableError(Exception):
    """A metric needs something that is not here; the text is the remedy."""


@dataclass(frozen=True)
class Pairs:
    """sources, references [examples]; predictions: per example the k-best list, best first, never empty.

    products: what a forward model makes of each best prediction, if there is one. workers: processes for what is
    expensive.
    """

    sources: list[str]
    references: list[str]
    predictions: list[list[str]]
    products: list[str] | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        lists = (self.sources, self.references, self.predictions, self.products)
        lengths = {len(one) for one in lists if one is not None}
        if len(lengths) != 1 or 0 in lengths or not all(self.predictions):
            raise ValueError("sources, references and predictions need one length, and every example a prediction")

    @cached_property
    def best(self) -> list[str]:
        """The first prediction of every example."""
        return [ranked[0] for ranked in self.predictions]

    @cached_property
    def shortest(self) -> int:
        """Length of the shortest k-best list."""
        return min(map(len, self.predictions))

    @cached_property
    def subwords(self) -> tuple[list[list[str]], list[list[str]]]:
        """SciBERT tokens of the references and of the best predictions."""
        vocabulary = text.find_scibert()
        if vocabulary is None:
            raise UnavailableError(
                "needs SciBERT's vocabulary: set BIGCHEM_SCIBERT to scibert_scivocab_uncased/vocab.txt"
            )
        return text.subwords(self.references, vocabulary), text.subwords(self.best, vocabulary)

    @cached_property
    def subword_counts(self) -> Floats:
        """bleu_counts up to order 4 over SciBERT tokens."""
        return text.bleu_counts(*self.subwords, order=4)

    @cached_property
    def word_counts(self) -> Floats:
        """bleu_counts up to order 4 over plain words."""
        references, best = ([text.words(one) for one in side] for side in (self.references, self.best))
        return text.bleu_counts(references, best, order=4)

    @cached_property
    def character_counts(self) -> Floats:
        """bleu_counts up to order 4 over characters."""
        return text.bleu_counts(self.references, self.best, order=4)

    @cached_property
    def action_counts(self) -> Floats:
        """bleu_counts up to order 2 over the tokens of action texts."""
        references, best = ([actions.tokens(one) for one in side] for side in (self.references, self.best))
        return text.bleu_counts(references, best, order=2)

    @cached_property
    def rouge(self) -> Floats:
        """The three columns of text.rouge."""
        return over_cores(text.rouge, self.references, self.best, self.workers, _SMALL_TEXT)

    @cached_property
    def meteor(self) -> Floats:
        """METEOR of each pair over SciBERT tokens."""
        folder = text.find_wordnet()
        if folder is None:
            raise UnavailableError(
                "needs WordNet 3.0: set NLTK_DATA to a folder with corpora/wordnet (nltk.downloader wordnet)"
            )
        return over_cores(partial(text.meteor, nltk_data=folder), *self.subwords, self.workers, _SMALL_TEXT)

    @cached_property
    def molecules(self) -> dict[str, Floats]:
        """The columns of molecules.compare."""
        table = over_cores(molecules.compare, self.references, self.best, self.workers)
        return dict(zip(molecules.COLUMNS, table.T, strict=True))

    @cached_property
    def ranks(self) -> dict[str, Floats]:
        """The columns of reactions.ranks."""
        table = over_cores(reactions.ranks, self.references, self.predictions, self.workers)
        return dict(zip(reactions.COLUMNS, table.T, strict=True))

    @cached_property
    def round_trip(self) -> dict[str, Floats]:
        """The columns of reactions.ranks, of the forward model's products against the sources."""
        if self.products is None:
            raise UnavailableError("needs a forward model: add --forward-model MODEL, which may be the model itself")
        made = [[product] for product in self.products]
        table = over_cores(reactions.ranks, self.sources, made, self.workers)
        return dict(zip(reactions.COLUMNS, table.T, strict=True))

    @cached_property
    def action_matches(self) -> dict[str, Floats]:
        """actions.matches of the best predictions."""
        return actions.matches(self.references, self.best)

    @cached_property
    def similarity(self) -> Floats:
        """Levenshtein similarity of action texts."""
        return actions.similarity(self.references, self.best)

    @property
    def frechet(self) -> float:
        """Fréchet ChemNet distance."""
        try:
            return molecules.frechet_distance(self.references, self.best)
        except ImportError:
            raise UnavailableError("needs the optional package fcd: pip install 'bigchem[fcd]'") from None
