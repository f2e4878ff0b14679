"""Keeps the molecules that a model is judged on out of what it is trained on, across all tasks.

A row leaks if its molecule (the captioned one, the product) is the molecule of a valid or test row of any task:
USPTO-MIT test products, for one, are among the USPTO-50k training products. The workers of a build compute identities,
one pure function over them decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass

from rdkit import Chem

from bigchem.data.sources.base import RowError
from bigchem.data.sources.molecules import parse


def identity(smiles: str) -> str | None:
    """The standard InChIKey: the same for every spelling and tautomer, another for another stereoisomer.

    Its first 14 characters are the skeleton without stereochemistry. None where there is no InChI: SMILES that RDKit
    cannot read, dummy atoms, more than 1,023 atoms. `smiles` joins fragments by dots.
    """
    try:
        return Chem.MolToInchiKey(parse(smiles)) or None
    except RowError:
        return None


@dataclass(frozen=True)
class Leaks:
    """What one training task lost.

    rows: training rows looked at. dropped: rows left out. unidentified: rows kept unchecked, having no molecule or no
    identity. by_held_out: rows left out because of each held-out set ("test/forward"); one row counts under each that
    holds its molecule, so that these may add up to more than `dropped`.
    """

    rows: int
    dropped: int
    unidentified: int
    by_held_out: dict[str, int]


def drop_leaked(
    train: Mapping[str, Sequence[str | None]], held_out: Mapping[str, AbstractSet[str]]
) -> tuple[dict[str, list[int]], dict[str, dict[str, object]]]:
    """(positions of the rows to keep, report), both by training task.

    train: identities of the training rows by task, in row order. held_out: identities by "split/task". The report's
    values are Leaks as plain dicts, ready for JSON.
    """
    kept: dict[str, list[int]] = {}
    report: dict[str, dict[str, object]] = {}
    everything = frozenset[str]().union(*held_out.values())
    for task, identities in train.items():
        kept[task] = [i for i, found in enumerate(identities) if found not in everything]
        by_held_out = {name: sum(found in held for found in identities) for name, held in held_out.items()}
        leaks = Leaks(
            rows=len(identities),
            dropped=len(identities) - len(kept[task]),
            unidentified=sum(found is None for found in identities),
            by_held_out={name: count for name, count in by_held_out.items() if count},
        )
        report[task] = asdict(leaks)
    return kept, report
