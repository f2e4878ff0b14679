"""Which metrics, with which definitions, for which task.

A metric is one entry of PROTOCOL. Its definition is a pinned id with its meaning in words: a change that can change a
number needs a new id. What a metric needs and cannot find makes it n/a with the remedy; nothing stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from bigchem.evaluate import actions, molecules, text
from bigchem.evaluate.intervals import Statistic, mean_of, ratio_of
from bigchem.evaluate.pairs import Pairs, UnavailableError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """An entry of the protocol.

    name: its one name in every table. definition: pinned id. meaning: the definition in words. compute: raises
    UnavailableError with a remedy; a bare number (no interval) where the metric is no sum over examples. needs: scored
    only where every k-best list is at least this long. applies: scored only where this holds.
    """

    name: str
    definition: str
    meaning: str
    compute: Callable[[Pairs], Statistic | float]
    higher_is_better: bool = True
    needs: int = 1
    applies: Callable[[Pairs], bool] = lambda _: True


def _bleu(counts: Floats, order: int) -> Statistic:
    return Statistic(counts, partial(text.bleu, order=order), len(counts))


def _share(hits: NDArray[np.bool_], note: str = "") -> Statistic:
    return mean_of(hits.astype(np.float64), note)


def _misses(parses: Floats) -> str:
    """The note about references that are no SMILES."""
    count = int((parses == 0).sum())
    return f"{count} references do not parse and count as misses" if count else ""


def _without_inchi(molecules: dict[str, Floats]) -> str:
    """The note about pairs that InChI says nothing of."""
    count = int(molecules["without_inchi"].sum())
    return f"{count} pairs have no InChI and were compared by canonical SMILES" if count else ""


def _crowded(molecules: dict[str, Floats]) -> str:
    """The note about pairs that have no fingerprints."""
    count = int(molecules["crowded"].sum())
    return f"{count} pairs are left out: a molecule with too many rings or bonds at one place" if count else ""


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _rouge(column: int, name: str) -> Metric:
    meaning = f"Mean {name} F of the raw texts (package rouge_score, no stemming)."
    return Metric(name, f"{name}/molt5-v1", meaning, lambda pairs: mean_of(pairs.rouge[:, column]))


def _tanimoto(name: str, fingerprint: str) -> Metric:
    meaning = f"Mean Tanimoto similarity of {fingerprint} over the pairs that both parse."
    return Metric(
        name, f"{name}/molt5-v1", meaning, lambda pairs: mean_of(pairs.molecules[name], _crowded(pairs.molecules))
    )


def _top(k: int, column: str = "rank") -> Metric:
    meaning = (
        f"Share of references among the first {k} predictions, as RDKit canonical SMILES (at a fixed point, atom maps "
        "removed before parsing, dative bonds drawn as charges); ~ counts as a dot."
    )
    name = f"top{k}{column.removeprefix('rank')}"
    return Metric(
        name,
        f"{name}/canonical-v2",
        meaning if column == "rank" else f"top{k} with stereochemistry removed from both sides.",
        lambda pairs: _share(pairs.ranks[column] < k, _misses(pairs.ranks["parses"])),
        needs=k,
    )


def _near(percent: int) -> Metric:
    meaning = (
        f"Share of predictions with 1 - Levenshtein distance / longer length >= {percent} %, in characters, white "
        "space around the texts aside."
    )
    return Metric(
        f"lev{percent}", f"lev{percent}/vaucher-v1", meaning, lambda pairs: _share(pairs.similarity >= percent / 100)
    )


def _validity(column: Callable[[Pairs], Floats]) -> Metric:
    meaning = (
        "Share of best predictions that RDKit parses, without white space in them; the empty string is no molecule."
    )
    return Metric("validity", "validity/rdkit-v2", meaning, lambda pairs: mean_of(column(pairs)))


def _round_trip(name: str, column: str, meaning: str) -> Metric:
    return Metric(name, f"{name}/forward-model-v1", meaning, lambda pairs: _share(pairs.round_trip[column] < 1))


def _text2mol(script: str) -> Metric:
    def missing(_: Pairs) -> NoReturn:
        raise UnavailableError(
            f"needs Text2Mol's weights, which bigchem does not run: MolT5's evaluation/{script} reads MolT5's table"
        )

    meaning = "Mean Text2Mol similarity of molecule and text (Edwards et al. 2021)."
    return Metric("text2mol", "text2mol/molt5-v1", meaning, missing)


def _precision(name: str) -> Callable[[Pairs], Statistic]:
    return lambda pairs: ratio_of(pairs.action_matches[name][:, 0], pairs.action_matches[name][:, 1])


def _recall(name: str) -> Callable[[Pairs], Statistic]:
    return lambda pairs: ratio_of(pairs.action_matches[name][:, 0], pairs.action_matches[name][:, 2])


def _per_action(name: str) -> tuple[Metric, Metric]:
    """Precision and recall of one kind of action; scored where the references or the predictions have it."""

    def applies(pairs: Pairs) -> bool:
        return bool(pairs.action_matches[name][:, 1:].any())

    kind = f"of the action {name}: matched by kind within an example, whatever stands after it"
    precision = f"Share of predicted actions that are in the reference, {kind}."
    recall = f"Share of the reference's actions that are predicted, {kind}."
    return (
        Metric(f"precision_{name}", f"precision_{name}/kind-v1", precision, _precision(name), applies=applies),
        Metric(f"recall_{name}", f"recall_{name}/kind-v1", recall, _recall(name), applies=applies),
    )


_SUBWORD = "over SciBERT WordPiece tokens (uncased, the first 512)"
_WORD = "over lower-cased words and single punctuation marks, no smoothing; not comparable with published numbers"

_CAPTIONING = (
    Metric("bleu2", "bleu2/molt5-v1", f"Corpus BLEU-2 {_SUBWORD}, no smoothing.", lambda p: _bleu(p.subword_counts, 2)),
    Metric("bleu4", "bleu4/molt5-v1", f"Corpus BLEU-4 {_SUBWORD}, no smoothing.", lambda p: _bleu(p.subword_counts, 4)),
    _rouge(0, "rouge1"),
    _rouge(1, "rouge2"),
    _rouge(2, "rougeL"),
    Metric(
        "meteor",
        "meteor/molt5-v1",
        f"Mean METEOR (nltk: alpha .9, beta 3, gamma .5, Porter stems, WordNet 3.0) {_SUBWORD}.",
        lambda p: mean_of(p.meteor),
    ),
    _text2mol("text_text2mol_metric.py"),
    Metric("bleu2_words", "bleu2/words-v1", f"Corpus BLEU-2 {_WORD}.", lambda p: _bleu(p.word_counts, 2)),
    Metric("bleu4_words", "bleu4/words-v1", f"Corpus BLEU-4 {_WORD}.", lambda p: _bleu(p.word_counts, 4)),
)
_GENERATION = (
    Metric(
        "bleu",
        "bleu/molt5-v1",
        "Corpus BLEU-4 over the characters of the SMILES strings, no smoothing.",
        lambda p: _bleu(p.character_counts, 4),
    ),
    Metric(
        "exact",
        "exact/inchi-v2",
        "Share of predictions with the reference's InChI, dative bonds drawn as charges (its canonical SMILES where "
        "neither has an InChI).",
        lambda p: mean_of(p.molecules["exact"], _joined(_misses(p.molecules["parses"]), _without_inchi(p.molecules))),
    ),
    Metric(
        "levenshtein",
        "levenshtein/molt5-v1",
        "Mean Levenshtein distance of the SMILES strings, in characters.",
        lambda p: mean_of(molecules.levenshtein(p.references, p.best)),
        higher_is_better=False,
    ),
    _tanimoto("maccs", "MACCS keys"),
    _tanimoto("rdk", "RDKit path fingerprints (2048 bits, paths of 1 to 7 bonds)"),
    _tanimoto("morgan", "Morgan fingerprints (radius 2, counts)"),
    Metric(
        "fcd",
        "fcd/chemnet350-v1",
        "Fréchet ChemNet distance (package fcd) between all references and all predictions that parse, as canonical "
        "SMILES cut at 349 characters, so that both sides are padded to the 350 that ChemNet was trained at.",
        lambda p: p.frechet,
        higher_is_better=False,
    ),
    _validity(lambda p: p.molecules["valid"]),
    _text2mol("mol_text2mol_metric.py"),
)
_RANKS = (1, 2, 3, 5, 10)
_REACTION = (
    *(_top(k) for k in _RANKS),
    *(_top(k, "rank_nostereo") for k in _RANKS),
    _validity(lambda p: p.ranks["valid"]),
    Metric(
        "invalid",
        "invalid/k-best-v2",
        "Mean share of an example's k predictions, not only the best, that RDKit does not parse.",
        lambda p: mean_of(p.ranks["invalid"]),
        higher_is_better=False,
    ),
)
_ROUND_TRIPS = (
    _round_trip(
        "round_trip",
        "rank",
        "Share of best predictions from which a forward model predicts the product, as RDKit canonical SMILES.",
    ),
    _round_trip("round_trip_nostereo", "rank_nostereo", "round_trip with stereochemistry removed from both sides."),
)
_ACTIONS = (
    Metric(
        "bleu2",
        "bleu2/whitespace-v1",
        "Corpus BLEU-2 over the text split at white space, no smoothing.",
        lambda p: _bleu(p.action_counts, 2),
    ),
    Metric(
        "exact",
        "exact/text-v1",
        "Share of predictions that are the reference's text, white space around it aside.",
        lambda p: mean_of(actions.exact(p.references, p.best)),
    ),
    _near(90),
    _near(75),
    _near(50),
    Metric(
        "precision",
        "precision/whole-v1",
        "Share of predicted actions that are in the reference, kind and all that stands after it alike.",
        _precision(actions.WHOLE),
    ),
    Metric(
        "recall",
        "recall/whole-v1",
        "Share of the references' actions that are predicted, kind and all that stands after it alike.",
        _recall(actions.WHOLE),
    ),
    *(metric for name in actions.KINDS for metric in _per_action(name)),
)

PROTOCOL: dict[str, tuple[Metric, ...]] = {
    "captioning": _CAPTIONING,
    "generation": _GENERATION,
    "forward": _REACTION,
    "retrosynthesis": (*_REACTION, *_ROUND_TRIPS),
    "actions": _ACTIONS,
}
"""Task -> its metrics, in the order of its table."""

DEFINITIONS: dict[str, str] = {metric.definition: metric.meaning for task in PROTOCOL.values() for metric in task}
"""Every definition id in words."""

HIGHER_IS_BETTER: dict[str, bool] = {
    metric.name: metric.higher_is_better for task in PROTOCOL.values() for metric in task
}
"""Metric name -> whether more is better, for every metric of every task."""
