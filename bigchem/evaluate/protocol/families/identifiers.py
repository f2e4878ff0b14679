"""The metrics of IUPAC names, molecular formulas and sets of reagents."""

import math

import numpy as np

from bigchem.evaluate.metrics import formulas
from bigchem.evaluate.metrics.intervals import Statistic, mean_of, ratio_of, share_of
from bigchem.evaluate.protocol.families.text import EXACT_TEXT, TEXT_SIMILARITY
from bigchem.evaluate.protocol.metric import Floats, Metric, misses, out_of, similarity
from bigchem.evaluate.protocol.pairs import Pairs

_OPSIN = "OPSIN (Lowe et al. 2011, package py2opsin)"


def _same_molecule(pairs: Pairs) -> Statistic:
    same = pairs.named["same"]
    note = out_of(np.isnan(same), "references that OPSIN cannot read: left out")
    return mean_of(same, note, "share")


NAME = (
    EXACT_TEXT,
    Metric(
        "levenshtein",
        "levenshtein/text-v1",
        "Mean Levenshtein distance of the texts, in characters.",
        lambda p: mean_of(p.distance),
        higher_is_better=False,
        highest=math.inf,
    ),
    TEXT_SIMILARITY,
    Metric(
        "same_molecule",
        "same_molecule/opsin-v1",
        f"Share of predicted names that {_OPSIN} reads as the reference's molecule, by InChI (canonical SMILES where "
        "neither has one), over the references that it reads.",
        _same_molecule,
        undefined="OPSIN reads no reference",
    ),
    Metric(
        "valid_names",
        "valid_names/opsin-v1",
        f"Share of predicted names that {_OPSIN} reads.",
        lambda p: share_of(p.named["valid"] == 1),
    ),
)


def _compositions(pairs: Pairs) -> dict[str, Floats]:
    return dict(zip(formulas.COLUMNS, formulas.compare(pairs.references, pairs.best).T, strict=True))


def _of_atoms(column: str, meaning: str) -> Metric:
    def compute(pairs: Pairs) -> Statistic:
        found = _compositions(pairs)
        return similarity(found[column], out_of(found["parses"] == 0, "references are not formulas: left out"))

    undefined = "no reference is a formula"
    return Metric(column, f"{column}/formula-v1", f"{meaning}; 0 if it does not parse.", compute, undefined=undefined)


FORMULA = (
    Metric(
        "exact",
        "exact/composition-v1",
        "Share of predictions with the reference's number of atoms of each element and its charge, in whatever order.",
        lambda p: share_of(_compositions(p)["exact"] == 1),
    ),
    _of_atoms("elements", "Mean share of the elements in reference or prediction whose number of atoms is right"),
    _of_atoms("atoms", "Mean F1 of the prediction's atoms, as a bag of elements"),
    Metric(
        "valid_formulas",
        "valid_formulas/hill-v1",
        "Share of predictions that are a formula: elements, their numbers, and perhaps a charge such as -2.",
        lambda p: share_of(_compositions(p)["valid"] == 1),
    ),
)

_SET = "molecules joined by dots, as RDKit canonical SMILES; order and repetitions do not matter"


def _f1(pairs: Pairs) -> Statistic:
    found = pairs.reagents
    return ratio_of(2 * found["shared"], found["predicted"] + found["wanted"])


REAGENTS = (
    Metric(
        "exact",
        "exact/reagents-v1",
        f"Share of predictions that are the reference's set of {_SET}.",
        lambda p: share_of(p.reagents["same"] == 1, misses(p.reagents["parses"])),
    ),
    Metric(
        "precision",
        "precision/reagents-v1",
        f"Share of predicted molecules that are in the reference's set of {_SET}.",
        lambda p: ratio_of(p.reagents["shared"], p.reagents["predicted"]),
        undefined="no prediction has a molecule",
    ),
    Metric(
        "recall",
        "recall/reagents-v1",
        f"Share of the references' molecules that are in the predicted set of {_SET}.",
        lambda p: ratio_of(p.reagents["shared"], p.reagents["wanted"]),
    ),
    Metric("f1", "f1/reagents-v1", f"F1 of all molecules of the sets of {_SET}.", _f1),
    Metric(
        "validity",
        "validity/reagents-v1",
        "Share of predictions all of whose molecules RDKit parses.",
        lambda p: share_of(p.reagents["valid"] == 1),
    ),
)
