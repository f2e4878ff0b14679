"""The metrics of generation."""

import math
from dataclasses import replace

from bigchem.evaluate.metrics.intervals import mean_of, share_of
from bigchem.evaluate.protocol.metric import (
    CHARACTER_BLEU,
    FINGERPRINTS,
    LEVENSHTEIN,
    Metric,
    crowded,
    joined,
    misses,
    similarity,
    text2mol,
    validity,
    without_inchi,
)


def _tanimoto(name: str) -> Metric:
    meaning = f"Mean Tanimoto similarity of {FINGERPRINTS[name]} over the pairs that are both valid."
    return Metric(name, f"{name}/molt5-v2", meaning, lambda p: similarity(p.molecules[name], crowded(p.molecules)))


GENERATION = (
    CHARACTER_BLEU,
    Metric(
        "exact",
        "exact/inchi-v2",
        "Share of predictions with the reference's InChI, dative bonds drawn as charges (its canonical SMILES where "
        "neither has an InChI).",
        lambda p: share_of(
            p.molecules["exact"] == 1, joined(misses(p.molecules["parses"]), without_inchi(p.molecules))
        ),
    ),
    LEVENSHTEIN,
    *map(_tanimoto, FINGERPRINTS),
    Metric(
        "fcd",
        "fcd/chemnet350-v2",
        "Fréchet ChemNet distance (package fcd) between all references and all predictions that parse, as canonical "
        "SMILES cut at 349 characters, so that both sides are padded to the 350 that ChemNet was trained at.",
        lambda p: p.frechet,
        higher_is_better=False,
        resampled=False,
        highest=math.inf,
    ),
    validity(lambda p: p.molecules["valid"]),
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
        "Distinct molecules / predictions that parse, as RDKit canonical SMILES.",
        lambda p: similarity(p.uniqueness),
    ),
    Metric(
        "novelty",
        "novelty/canonical-v2",
        "Share of predictions that parse whose molecule is not among those that the model was trained to generate, as "
        "RDKit canonical SMILES.",
        lambda p: replace(mean_of(p.novelty), kind="share"),
    ),
    text2mol("mol_text2mol_metric.py"),
)
