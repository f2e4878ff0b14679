"""Which metrics, with which definitions, for which task.

A metric is one entry of PROTOCOL. Its definition is a pinned id with its meaning in words: a change that can change a
number needs a new id. What a metric needs and cannot find makes it n/a with the remedy; nothing stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from bigchem.evaluate.metrics import actions, functional_groups, text
from bigchem.evaluate.metrics.intervals import Statistic, mean_of, ratio_of, share_of
from bigchem.evaluate.protocol.pairs import Pairs, UnavailableError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """An entry of the protocol.

    name: its one name in every table. definition: pinned id. meaning: the definition in words. compute: raises
    UnavailableError with a remedy; a bare number (no interval) where the metric is no sum over examples. needs: n/a
    unless some k-best list is at least this long. undefined: the note where nothing counts. by_class: also stands for
    each class of examples.
    """

    name: str
    definition: str
    meaning: str
    compute: Callable[[Pairs], Statistic | float]
    higher_is_better: bool = True
    needs: int = 1
    undefined: str = "undefined: no prediction counts"
    by_class: bool = False


def _bleu(counts: Floats, order: int) -> Statistic:
    return Statistic(counts, partial(text.bleu, order=order), np.ones(len(counts), dtype=np.bool_))


def _counted(count: float, one: str, several: str) -> str:
    """A note with a count in front; empty for none."""
    return f"{int(count)} {one if count == 1 else several}" if count else ""


def _misses(parses: Floats) -> str:
    """The note about references that are no SMILES."""
    one, several = "reference does not parse and counts as a miss", "references do not parse and count as misses"
    return _counted((parses == 0).sum(), one, several)


def _without_inchi(columns: dict[str, Floats]) -> str:
    """The note about pairs that InChI says nothing of."""
    told = "no InChI, compared by canonical SMILES"
    return _counted(columns["without_inchi"].sum(), f"pair has {told}", f"pairs have {told}")


def _crowded(columns: dict[str, Floats]) -> str:
    """The note about pairs that have no fingerprints."""
    why = "left out: a molecule with too many rings or bonds at one place"
    return _counted(columns["crowded"].sum(), f"pair is {why}", f"pairs are {why}")


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _similarity(values: Floats, note: str = "") -> Statistic:
    """The mean of similarities in [0, 1]; NaN: of no prediction."""
    return mean_of(values, note, "fraction")


def _rouge(column: int, name: str) -> Metric:
    meaning = f"Mean {name} F of the raw texts (package rouge_score, no stemming)."
    return Metric(name, f"{name}/molt5-v1", meaning, lambda pairs: _similarity(pairs.rouge[:, column]))


_FINGERPRINTS = {
    "maccs": "MACCS keys",
    "rdk": "RDKit path fingerprints (2048 bits, paths of 1 to 7 bonds)",
    "morgan": "Morgan fingerprints (radius 2, counts)",
}


def _tanimoto(name: str) -> Metric:
    meaning = f"Mean Tanimoto similarity of {_FINGERPRINTS[name]} over the pairs that are both valid."
    return Metric(name, f"{name}/molt5-v2", meaning, lambda p: _similarity(p.molecules[name], _crowded(p.molecules)))


def _tanimoto_of_reactions(name: str) -> Metric:
    meaning = (
        f"Mean Tanimoto similarity of {_FINGERPRINTS[name]} over the pairs that both parse, all fragments of a side as "
        "one molecule, without atom maps; ~ counts as a dot, and a hit of top1 has 1."
    )
    return Metric(
        name, f"{name}/fragments-v1", meaning, lambda p: _similarity(p.similarities[name], _crowded(p.similarities))
    )


_RANKED = {
    "rank": "as RDKit canonical SMILES (at a fixed point, atom maps removed before parsing, dative bonds drawn as "
    "charges); ~ counts as a dot",
    "rank_nostereo": "with stereochemistry removed from both sides",
    "rank_maxfrag": "by the largest fragment alone, that with most heavy atoms (MaxFrag, Tetko et al. 2020)",
}


def _top(k: int, column: str = "rank") -> Metric:
    meaning = (
        f"Share of references among the first {k} predictions, {_RANKED[column]}. A list with fewer predictions has no "
        "further hits."
    )
    name = f"top{k}{column.removeprefix('rank')}"
    return Metric(
        name,
        f"{name}/canonical-v2",
        meaning,
        lambda pairs: share_of(pairs.ranks[column] < k, _joined(_misses(pairs.ranks["parses"]), pairs.shorter_than(k))),
        needs=k,
        by_class=column != "rank_nostereo",
    )


def _near(percent: int) -> Metric:
    meaning = (
        f"Share of predictions with 1 - Levenshtein distance / longer length >= {percent} %, in characters, white "
        "space around the texts aside."
    )
    return Metric(
        f"lev{percent}", f"lev{percent}/vaucher-v1", meaning, lambda pairs: share_of(pairs.similarity >= percent / 100)
    )


def _validity(column: Callable[[Pairs], Floats]) -> Metric:
    meaning = (
        "Share of best predictions that RDKit parses, without white space in them; the empty string is no molecule."
    )
    return Metric("validity", "validity/rdkit-v2", meaning, lambda pairs: share_of(column(pairs) == 1), by_class=True)


def _round_trip(name: str, column: str, meaning: str) -> Metric:
    return Metric(
        name, f"{name}/forward-model-v2", meaning, lambda pairs: share_of(pairs.round_trip[column] < 1), by_class=True
    )


def _text2mol(script: str) -> Metric:
    def missing(_: Pairs) -> NoReturn:
        raise UnavailableError(
            f"needs Text2Mol's weights, which bigchem does not run: MolT5's evaluation/{script} reads MolT5's table"
        )

    meaning = "Mean Text2Mol similarity of molecule and text (Edwards et al. 2021)."
    return Metric("text2mol", "text2mol/molt5-v1", meaning, missing)


def _of_references(pairs: Pairs) -> str:
    """How often the references name groups in vain: they speak of parent compounds too."""
    found = mean_of(pairs.reference_groups[:, 1])
    return f"of the references themselves: {found.value:.4f}" if found.n else ""


def _precision(name: str) -> Callable[[Pairs], Statistic]:
    return lambda pairs: ratio_of(pairs.action_matches[name][:, 0], pairs.action_matches[name][:, 1])


def _recall(name: str) -> Callable[[Pairs], Statistic]:
    return lambda pairs: ratio_of(pairs.action_matches[name][:, 0], pairs.action_matches[name][:, 2])


def _per_action(name: str) -> tuple[Metric, Metric]:
    """Precision and recall of one kind of action."""
    kind = f"of the action {name}: matched by kind within an example, whatever stands after it"
    precision = f"Share of predicted actions that are in the reference, {kind}."
    recall = f"Share of the reference's actions that are predicted, {kind}."
    unpredicted, unasked = "no prediction has this action", "no reference has this action"
    return (
        Metric(f"precision_{name}", f"precision_{name}/kind-v1", precision, _precision(name), undefined=unpredicted),
        Metric(f"recall_{name}", f"recall_{name}/kind-v1", recall, _recall(name), undefined=unasked),
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
        lambda p: _similarity(p.meteor),
    ),
    Metric(
        "bertscore",
        "bertscore/roberta-large-17-v1",
        "Mean BERTScore F (package bert_score: roberta-large, layer 17, no idf weights, not rescaled) of the raw "
        "texts.",
        lambda p: mean_of(p.bertscore),
    ),
    Metric(
        "hallucinated_groups",
        "hallucinated_groups/smarts-v1",
        f"Mean number of functional groups, of a pinned list of {len(functional_groups.GROUPS)}, "
        "that a caption names and its molecule does not have.",
        lambda p: mean_of(p.groups[:, 1], _of_references(p)),
        higher_is_better=False,
    ),
    Metric(
        "hallucinated_share",
        "hallucinated_share/smarts-v1",
        "Share of the functional groups that captions name, of the same list, that their molecules do not have.",
        lambda p: ratio_of(p.groups[:, 1], p.groups[:, 0]),
        higher_is_better=False,
        undefined="no caption names a group of the list",
    ),
    _text2mol("text_text2mol_metric.py"),
    Metric("bleu2_words", "bleu2/words-v1", f"Corpus BLEU-2 {_WORD}.", lambda p: _bleu(p.word_counts, 2)),
    Metric("bleu4_words", "bleu4/words-v1", f"Corpus BLEU-4 {_WORD}.", lambda p: _bleu(p.word_counts, 4)),
)
_CHARACTER_BLEU = Metric(
    "bleu",
    "bleu/molt5-v1",
    "Corpus BLEU-4 over the characters of the SMILES strings, no smoothing.",
    lambda p: _bleu(p.character_counts, 4),
)
_LEVENSHTEIN = Metric(
    "levenshtein",
    "levenshtein/molt5-v1",
    "Mean Levenshtein distance of the SMILES strings, in characters.",
    lambda p: mean_of(p.distance),
    higher_is_better=False,
)
_GENERATION = (
    _CHARACTER_BLEU,
    Metric(
        "exact",
        "exact/inchi-v2",
        "Share of predictions with the reference's InChI, dative bonds drawn as charges (its canonical SMILES where "
        "neither has an InChI).",
        lambda p: share_of(
            p.molecules["exact"] == 1, _joined(_misses(p.molecules["parses"]), _without_inchi(p.molecules))
        ),
    ),
    _LEVENSHTEIN,
    *map(_tanimoto, _FINGERPRINTS),
    Metric(
        "fcd",
        "fcd/chemnet350-v2",
        "Fréchet ChemNet distance (package fcd) between all references and all predictions that parse, as canonical "
        "SMILES cut at 349 characters, so that both sides are padded to the 350 that ChemNet was trained at.",
        lambda p: p.frechet,
        higher_is_better=False,
    ),
    _validity(lambda p: p.molecules["valid"]),
    Metric(
        "scaffold",
        "scaffold/murcko-v1",
        "Share of predictions with the reference's Bemis-Murcko scaffold, without stereochemistry, over the references "
        "that have a ring; a prediction that does not parse is a miss.",
        lambda p: replace(mean_of(p.molecules["scaffold"]), kind="share"),
        undefined="no reference has a ring",
    ),
    Metric(
        "uniqueness",
        "uniqueness/canonical-v1",
        "Different molecules by predictions that parse, as RDKit canonical SMILES.",
        lambda p: _similarity(p.uniqueness),
    ),
    Metric(
        "novelty",
        "novelty/canonical-v1",
        "Share of predictions that parse whose molecule is none of the training set's, as RDKit canonical SMILES.",
        lambda p: replace(mean_of(p.novelty), kind="share"),
    ),
    _text2mol("mol_text2mol_metric.py"),
)
_RANKS = (1, 2, 3, 5, 10, 20, 50)
_REACTION = (
    *(_top(k) for k in _RANKS),
    *(_top(k, "rank_nostereo") for k in _RANKS),
    *(_top(k, "rank_maxfrag") for k in (1, 3, 5, 10)),
    _validity(lambda p: p.ranks["valid"]),
    Metric(
        "invalid",
        "invalid/k-best-v2",
        "Mean share of an example's k predictions, not only the best, that RDKit does not parse.",
        lambda p: _similarity(p.ranks["invalid"]),
        higher_is_better=False,
    ),
    Metric(
        "exact",
        "exact/inchi-fragments-v1",
        "Share of best predictions with the reference's InChI, of all fragments together and without atom maps (its "
        "canonical SMILES where neither has an InChI); ~ counts as a dot.",
        lambda p: share_of(p.ranks["exact"] == 1, _joined(_misses(p.ranks["parses"]), _without_inchi(p.ranks))),
        by_class=True,
    ),
    *map(_tanimoto_of_reactions, _FINGERPRINTS),
    _CHARACTER_BLEU,
    _LEVENSHTEIN,
)
_ROUND_TRIPS = (
    _round_trip(
        "round_trip",
        "rank",
        "Share of best predictions from which a forward model predicts the product, as RDKit canonical SMILES.",
    ),
    _round_trip("round_trip_nostereo", "rank_nostereo", "round_trip with stereochemistry removed from both sides."),
    Metric(
        "round_trip_all",
        "round_trip_all/forward-model-v1",
        "Mean share of an example's k predictions, not only the best, from which the forward model predicts the "
        "product.",
        lambda p: _similarity(p.ways_back[:, 1] / p.ways_back[:, 0]),
        by_class=True,
    ),
    Metric(
        "round_trip_coverage",
        "round_trip_coverage/forward-model-v1",
        "Share of products that the forward model predicts from at least one of the k predictions (Schwaller et al. "
        "2020).",
        lambda p: share_of(p.ways_back[:, 1] > 0),
        by_class=True,
    ),
    Metric(
        "round_trip_diversity",
        "round_trip_diversity/forward-model-v1",
        "Mean share of an example's k predictions that are different sets of reactants from which the forward model "
        "predicts the product.",
        lambda p: _similarity(p.ways_back[:, 2] / p.ways_back[:, 0]),
        by_class=True,
    ),
)
_ACTIONS = (
    Metric(
        "bleu2",
        "bleu2/whitespace-v1",
        "Corpus BLEU-2 over the text split at white space, no smoothing.",
        lambda p: _bleu(p.action_counts, 2),
    ),
    Metric(
        "bleu_modified",
        "bleu_modified/vaucher-v1",
        "Corpus BLEU-4 over the text split at white space, no smoothing, texts of fewer than four words filled up to "
        "four (Vaucher et al. 2020).",
        lambda p: _bleu(p.padded_action_counts, 4),
    ),
    Metric(
        "exact",
        "exact/text-v1",
        "Share of predictions that are the reference's text, white space around it aside.",
        lambda p: share_of(p.same_text),
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
