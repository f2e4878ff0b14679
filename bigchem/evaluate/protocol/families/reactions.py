"""The metrics of forward and retrosynthesis."""

from bigchem.evaluate.metrics.intervals import share_of
from bigchem.evaluate.protocol.metric import (
    CHARACTER_BLEU,
    FINGERPRINTS,
    LEVENSHTEIN,
    Metric,
    crowded,
    joined,
    misses,
    similarity,
    validity,
    without_inchi,
)


def _tanimoto(name: str) -> Metric:
    meaning = (
        f"Mean Tanimoto similarity of {FINGERPRINTS[name]} over the pairs that both parse, all fragments of a side as "
        "one molecule, without atom maps; ~ counts as a dot, and a hit of top1 counts as 1."
    )
    return Metric(
        name, f"{name}/fragments-v1", meaning, lambda p: similarity(p.similarities[name], crowded(p.similarities))
    )


_RANKED = {
    "rank": "as RDKit canonical SMILES (at a fixed point, atom maps removed before parsing, dative bonds drawn as "
    "charges); ~ counts as a dot",
    "rank_nostereo": "with stereochemistry removed from both sides",
    "rank_maxfrag": "by the largest fragment alone, the one with the most heavy atoms (MaxFrag, Tetko et al. 2020)",
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
        lambda pairs: share_of(pairs.ranks[column] < k, joined(misses(pairs.ranks["parses"]), pairs.shorter_than(k))),
        needs=k,
        by_class=column != "rank_nostereo",
    )


def _round_trip(name: str, column: str, meaning: str) -> Metric:
    return Metric(
        name, f"{name}/forward-model-v2", meaning, lambda pairs: share_of(pairs.round_trip[column] < 1), by_class=True
    )


_RANKS = (1, 2, 3, 5, 10, 20, 50)
REACTION = (
    *(_top(k) for k in _RANKS),
    *(_top(k, "rank_nostereo") for k in _RANKS),
    *(_top(k, "rank_maxfrag") for k in (1, 3, 5, 10)),
    validity(lambda p: p.ranks["valid"]),
    Metric(
        "invalid",
        "invalid/k-best-v2",
        "Mean share of an example's k predictions, not only the best, that RDKit does not parse.",
        lambda p: similarity(p.ranks["invalid"]),
        higher_is_better=False,
    ),
    Metric(
        "exact",
        "exact/inchi-fragments-v1",
        "Share of best predictions with the reference's InChI, of all fragments together and without atom maps (its "
        "canonical SMILES where neither has an InChI); ~ counts as a dot.",
        lambda p: share_of(p.ranks["exact"] == 1, joined(misses(p.ranks["parses"]), without_inchi(p.ranks))),
        by_class=True,
    ),
    *map(_tanimoto, FINGERPRINTS),
    CHARACTER_BLEU,
    LEVENSHTEIN,
)
ROUND_TRIPS = (
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
        lambda p: similarity(p.round_trip_counts[:, 1] / p.round_trip_counts[:, 0]),
        by_class=True,
    ),
    Metric(
        "round_trip_coverage",
        "round_trip_coverage/forward-model-v1",
        "Share of products that the forward model predicts from at least one of the k predictions (Schwaller et al. "
        "2020).",
        lambda p: share_of(p.round_trip_counts[:, 1] > 0),
        by_class=True,
    ),
    Metric(
        "round_trip_diversity",
        "round_trip_diversity/forward-model-v1",
        "Distinct sets of reactants from which the forward model predicts the product, as a mean share of an example's "
        "k predictions.",
        lambda p: similarity(p.round_trip_counts[:, 2] / p.round_trip_counts[:, 0]),
        by_class=True,
    ),
)
