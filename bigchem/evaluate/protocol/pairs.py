"""References and predictions of one task; what several metrics share is computed once."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bigchem.base.installed.packages import install_extra
from bigchem.evaluate.metrics import actions, bertscore, functional_groups, molecules, names, reactions, text
from bigchem.evaluate.metrics.pool import over_cores

Floats = NDArray[np.float64]
T = TypeVar("T")
Compare = Callable[[Sequence[str], Sequence[T]], NDArray[Any]]
"""(references, predictions) -> one row per pair."""

_SMALL_TEXT = 20_000
"""Score fewer texts than this in one process: a text takes half a millisecond, a worker's import of nltk a second."""

_ALWAYS_SMALL = sys.maxsize


class UnavailableError(Exception):
    """A metric needs something that is missing; the message is the remedy."""


@dataclass(frozen=True)
class Pairs:
    """sources, targets, predictions [examples]. targets: one reference, or several, any of which is right. predictions:
    k-best lists, best first, never empty.

    products: a forward model's outputs for the first predictions of each example, at least for the best. workers:
    processes for expensive metrics. training: the molecules the model was trained to generate, if known. similar: also
    compute similarities of reactions. labels: the task's; of several labels, their names. label_log_probabilities
    [examples, labels]: of each label given the source; of several labels, the log-odds of 1 against 0. losses
    [examples, 2]: the target's summed cross-entropy, in nats, and its number of tokens.
    """

    sources: list[str]
    targets: Sequence[str | Sequence[str]]
    predictions: list[list[str]]
    products: list[list[str]] | None = None
    workers: int = 1
    training: Sequence[str] | None = None
    similar: bool = False
    labels: tuple[str, ...] = ()
    label_log_probabilities: Floats | None = None
    losses: Floats | None = None

    def __post_init__(self) -> None:
        lists = (self.sources, self.targets, self.predictions, self.products)
        lengths = {len(column) for column in lists if column is not None}
        if len(lengths) != 1 or 0 in lengths or not all(self.predictions) or not all(self.products or [True]):
            raise ValueError("sources, targets and predictions must have one length, and every example a prediction")
        found = self.label_log_probabilities
        if found is not None and (found.shape != (len(self.targets), len(self.labels)) or np.isnan(found).any()):
            raise ValueError("label_log_probabilities must be [examples, labels], without NaN")

    @cached_property
    def options(self) -> list[list[str]]:
        """All references of each example."""
        return [[target] if isinstance(target, str) else list(target) for target in self.targets]

    @cached_property
    def several(self) -> bool:
        """Whether any example has several references."""
        return any(len(options) > 1 for options in self.options)

    @property
    def references(self) -> list[str]:
        """The reference of each example, for metrics that support only one; UnavailableError if one has more."""
        if self.several:
            raise UnavailableError("not defined for several references of an example")
        return [reference for (reference,) in self.options]

    def _against_any(self, compare: Compare[T], predictions: Sequence[T], small: int | None = None) -> Floats:
        """compare(reference, prediction) for every reference of each example: [references of all examples, columns]."""
        if not self.several:
            return over_cores(compare, self.references, list(predictions), self.workers, small)
        counts = [len(options) for options in self.options]
        repeated = [prediction for prediction, count in zip(predictions, counts, strict=True) for _ in range(count)]
        return over_cores(compare, list(chain(*self.options)), repeated, self.workers, small)

    def _best_of(self, values: Floats, least: bool = False) -> Floats:
        """The best value of _against_any per example (least: the lowest); NaN is ignored."""
        if not self.several:
            return values
        starts = np.cumsum([0, *(len(options) for options in self.options[:-1])])
        best: Floats = (np.fmin if least else np.fmax).reduceat(values, starts)
        return best

    @cached_property
    def best(self) -> list[str]:
        """The first prediction of each example."""
        return [ranked[0] for ranked in self.predictions]

    @cached_property
    def longest(self) -> int:
        """Length of the longest k-best list."""
        return max(map(len, self.predictions))

    def shorter_than(self, k: int) -> str:
        """The note about lists with fewer than k predictions; empty if there are none."""
        short = sum(len(ranked) < k for ranked in self.predictions)
        return f"lists of fewer than {k} predictions: {short} of {len(self.predictions)}" if short else ""

    @cached_property
    def subwords(self) -> tuple[list[list[str]], list[list[str]]]:
        """SciBERT tokens of all references in one list, and of the best predictions."""
        vocabulary = text.find_scibert()
        if vocabulary is None:
            raise UnavailableError(
                "needs SciBERT's vocabulary: set BIGCHEM_SCIBERT to scibert_scivocab_uncased/vocab.txt"
            )
        return text.subwords(list(chain(*self.options)), vocabulary), text.subwords(self.best, vocabulary)

    @cached_property
    def subword_counts(self) -> Floats:
        """bleu_counts up to order 4 over SciBERT tokens."""
        return self._bleu_counts(*self.subwords, order=4)

    @cached_property
    def word_counts(self) -> Floats:
        """bleu_counts up to order 4 over plain words."""
        return self._bleu_counts(*self._tokens(text.words), order=4)

    @cached_property
    def character_counts(self) -> Floats:
        """bleu_counts up to order 4 over characters."""
        return self._bleu_counts(list(chain(*self.options)), self.best, order=4)

    @cached_property
    def action_counts(self) -> Floats:
        """bleu_counts up to order 2 over the tokens of action texts."""
        return self._bleu_counts(*self._tokens(actions.tokens), order=2)

    @cached_property
    def padded_action_counts(self) -> Floats:
        """bleu_counts up to order 4 over action texts of at least four tokens."""
        return self._bleu_counts(*self._tokens(actions.padded), order=4)

    def _tokens(self, split: Callable[[str], list[str]]) -> tuple[list[list[str]], list[list[str]]]:
        """Tokens of all references in one list, and of the best predictions."""
        references, best = ([split(text) for text in side] for side in (chain(*self.options), self.best))
        return references, best

    def _bleu_counts(self, references: Sequence[Sequence[str]], best: Sequence[Sequence[str]], order: int) -> Floats:
        """text.bleu_counts of each prediction against all references of its example."""
        remaining = iter(references)
        return text.bleu_counts([list(islice(remaining, len(options))) for options in self.options], best, order)

    @cached_property
    def rouge(self) -> Floats:
        """The three columns of text.rouge."""
        return self._best_of(self._against_any(text.rouge, self.best, _SMALL_TEXT))

    @cached_property
    def meteor(self) -> Floats:
        """METEOR of each pair over SciBERT tokens."""
        folder = text.find_wordnet()
        if folder is None:
            raise UnavailableError(
                "needs WordNet 3.0: set NLTK_DATA to a folder with corpora/wordnet (nltk.downloader wordnet)"
            )
        references, best = self.subwords
        repeated = [tokens for tokens, options in zip(best, self.options, strict=True) for _ in options]
        meteor = partial(text.meteor, nltk_data=folder)
        return self._best_of(over_cores(meteor, references, repeated, self.workers, _SMALL_TEXT))

    @cached_property
    def bertscore(self) -> Floats:
        """BERTScore F of each pair of raw texts."""
        remedy = f"needs package bert_score and roberta-large: {install_extra('bertscore')}, BIGCHEM_ROBERTA=FOLDER"
        model = bertscore.find_roberta()
        if model is None:
            raise UnavailableError(remedy)
        try:
            return bertscore.bertscore(self.references, self.best, model)
        except ImportError:
            raise UnavailableError(remedy) from None

    @cached_property
    def groups(self) -> Floats:
        """functional_groups.counts of the best predictions and the molecules they describe."""
        return functional_groups.counts(self.sources, self.best)

    @cached_property
    def reference_groups(self) -> Floats:
        """functional_groups.counts of the references."""
        return functional_groups.counts(self.sources, self.references)

    @cached_property
    def generated(self) -> dict[str, NDArray[np.object_]]:
        """The columns of molecules.compare_generated."""
        table = self._against_any(molecules.compare_generated, self.best)
        columns = dict(zip(molecules.GENERATED, table.T, strict=True))
        if self.several:
            first = np.cumsum([0, *(len(options) for options in self.options[:-1])])
            best = {name: self._best_of(columns[name].astype(np.float64)) for name in columns if name != "name"}
            columns = {**best, "name": columns["name"][first]}
        return columns

    @cached_property
    def molecules(self) -> dict[str, Floats]:
        """The numeric columns of molecules.compare_generated."""
        return {name: column.astype(np.float64) for name, column in self.generated.items() if name != "name"}

    @cached_property
    def uniqueness(self) -> Floats:
        """[examples] 1 / number of predictions that are this molecule; NaN where the prediction does not parse."""
        counts = Counter(self.generated["name"])
        return np.array([np.nan if name is None else 1 / counts[name] for name in self.generated["name"]])

    @cached_property
    def novelty(self) -> Floats:
        """[examples] whether the predicted molecule is absent from the training set; NaN where it does not parse."""
        if self.training is None:
            raise UnavailableError(
                "needs the training set: bigchem score --train-set FILE, or, in evaluate, the data that the model was "
                "trained on, unchanged"
            )
        names = self.generated["name"]
        known = molecules.known(set(names) - {None}, self.training)
        return np.array([np.nan if name is None else float(name not in known) for name in names])

    @cached_property
    def ranks(self) -> dict[str, Floats]:
        """The columns of reactions.ranks: COLUMNS, EXACT, and SIMILARITIES if `similar`."""
        table = self._against_any(partial(reactions.ranks, exact=True, similar=self.similar), self.predictions)
        names = (*reactions.COLUMNS, *reactions.EXACT, *(reactions.SIMILARITIES if self.similar else ()))
        columns = zip(names, table.T, strict=True)
        return {name: self._best_of(column, least=name.startswith("rank")) for name, column in columns}

    @property
    def similarities(self) -> dict[str, Floats]:
        """The columns of reactions.SIMILARITIES."""
        if not self.similar:
            raise UnavailableError("left out: takes longer than all else; add --similarity, or similarity = true")
        return self.ranks

    @cached_property
    def round_trip(self) -> dict[str, Floats]:
        """The columns of reactions.ranks for the forward model's products against the sources."""
        table = over_cores(reactions.ranks, self.sources, [made[:1] for made in self._forward_products], self.workers)
        return dict(zip(reactions.COLUMNS, table.T, strict=True))

    @cached_property
    def round_trip_counts(self) -> Floats:
        """reactions.round_trips of all predictions."""
        tried = list(zip(self.predictions, self._forward_products, strict=True))
        if any(len(ranked) != len(made) for ranked, made in tried):
            raise UnavailableError("needs the forward model's products of all k predictions: add --forward-model MODEL")
        return over_cores(reactions.round_trips, self.sources, tried, self.workers)

    @property
    def _forward_products(self) -> list[list[str]]:
        if self.products is None:
            raise UnavailableError("needs a forward model: add --forward-model MODEL, which may be the model itself")
        return self.products

    @cached_property
    def reagents(self) -> dict[str, Floats]:
        """The columns of reactions.sets of the best predictions."""
        table = over_cores(reactions.sets, self.references, self.best, self.workers)
        return dict(zip(reactions.SETS, table.T, strict=True))

    @cached_property
    def named(self) -> dict[str, Floats]:
        """The columns of names.compare of the best predictions."""
        try:
            table = names.compare(self.references, self.best)
        except names.NoReaderError as error:
            raise UnavailableError(str(error)) from None
        return dict(zip(names.COLUMNS, table.T, strict=True))

    @cached_property
    def action_matches(self) -> dict[str, Floats]:
        """actions.matches of the best predictions."""
        return actions.matches(self.references, self.best)

    @cached_property
    def similarity(self) -> Floats:
        """actions.similarity of the best predictions."""
        return self._best_of(self._against_any(actions.similarity, self.best, _ALWAYS_SMALL))

    @cached_property
    def same_text(self) -> NDArray[np.bool_]:
        """actions.exact of the best predictions."""
        return self._best_of(self._against_any(actions.exact, self.best, _ALWAYS_SMALL)).astype(np.bool_)

    @cached_property
    def distance(self) -> Floats:
        """Levenshtein distance from the best prediction to the nearest reference, in characters."""
        return self._best_of(self._against_any(molecules.levenshtein, self.best, _ALWAYS_SMALL), least=True)

    @property
    def frechet(self) -> float:
        """Fréchet ChemNet distance."""
        try:
            return molecules.frechet_distance(self.references, self.best)
        except ImportError:
            raise UnavailableError(f"needs the optional package fcd: {install_extra('fcd')}") from None
