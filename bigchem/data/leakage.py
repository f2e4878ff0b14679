"""Keeps the molecules that a model is judged on out of what it is trained on, across all tasks.

A row leaks if its molecule (the captioned one, the product) is the molecule of a valid or test row of any task:
USPTO-MIT test products, for one, are among the USPTO-50k training products. The workers of a build compute identities,
one pure function over them decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from rdkit import Chem

from bigchem.data.sources.base import RowError, dotted
from bigchem.data.sources.molecules import parse

HashArray = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]

SKELETON = 14
"""Characters of an InChIKey for formula and connections, without stereochemistry, isotopes and protonation."""


@lru_cache(maxsize=1 << 14)
def inchikeys(molecule: str) -> tuple[str, ...]:
    """Standard InChIKeys of the compounds of `molecule` (joined by `.`, fragments of one compound by `~`): the same for
    every spelling and tautomer, others for other stereoisomers.

    None of a compound that has no InChI: SMILES that RDKit cannot read, dummy atoms, more than 1,023 atoms.
    """
    keys = []
    for compound in molecule.split("."):
        try:
            keys.append(Chem.MolToInchiKey(parse(dotted(compound))))
        except RowError:
            continue
    return tuple(key for key in keys if key)


def hash64(text: str) -> int:
    """64 bits that stand for a text, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Identities:
    """Which molecules the rows of one task are about: row number, hash of the InChIKey and of its skeleton [n], by row,
    of which a row may have several or none. rows: how many there are."""

    rows: int
    row: npt.NDArray[np.int64]
    exact: HashArray
    skeleton: HashArray

    @staticmethod
    def of(keys: Sequence[Sequence[str]]) -> Identities:
        """From the InChIKeys of each row."""
        row = np.repeat(np.arange(len(keys)), [len(found) for found in keys])
        flat = [key for found in keys for key in found]
        exact, skeleton = ([hash64(key[:end]) for key in flat] for end in (None, SKELETON))
        return Identities(len(keys), row, np.array(exact, dtype=np.uint64), np.array(skeleton, dtype=np.uint64))

    def rows_in(self, held_out: HashArray, skeleton: bool) -> BoolArray:
        """[rows] whether any molecule of the row is among the sorted hashes."""
        found = np.zeros(self.rows, dtype=bool)
        found[self.row[_member(self.skeleton if skeleton else self.exact, held_out)]] = True
        return found


@dataclass(frozen=True)
class Overlap:
    """Training rows of one task that are about molecules of one held-out set: rows, different molecules; the same
    without regard to stereochemistry."""

    rows: int
    molecules: int
    skeleton_rows: int
    skeleton_molecules: int


@dataclass(frozen=True)
class Leaks:
    """What one training task lost.

    rows: training rows looked at. dropped: rows left out. unidentified: rows kept unchecked, having no molecule or no
    InChI. by_held_out: by held-out set ("test/forward"); one row counts under each that holds its molecule.
    """

    rows: int
    dropped: int
    unidentified: int
    by_held_out: dict[str, Overlap]


def drop_leaked(
    train: Mapping[str, Identities], held_out: Mapping[str, Identities], keep_out: str
) -> tuple[dict[str, BoolArray], dict[str, dict[str, object]]]:
    """([rows] whether each row stays, report), both by training task.

    held_out: by "split/task". keep_out: "exact", "skeleton" or "none". The report's values are Leaks as plain dicts.
    """
    exact = {name: np.unique(found.exact) for name, found in held_out.items()}
    skeleton = {name: np.unique(found.skeleton) for name, found in held_out.items()}
    chosen = {"exact": exact, "skeleton": skeleton, "none": {}}[keep_out]
    everything = np.unique(np.concatenate([*chosen.values(), np.zeros(0, dtype=np.uint64)]))
    kept, report = {}, {}
    for task, found in train.items():
        kept[task] = ~found.rows_in(everything, keep_out == "skeleton")
        overlaps = {name: _overlap(found, exact[name], skeleton[name]) for name in held_out}
        leaks = Leaks(
            rows=found.rows,
            dropped=int(np.count_nonzero(~kept[task])),
            unidentified=found.rows - len(np.unique(found.row)),
            by_held_out={name: overlap for name, overlap in overlaps.items() if overlap.skeleton_rows},
        )
        report[task] = asdict(leaks)
    return kept, report


def _overlap(found: Identities, exact: HashArray, skeleton: HashArray) -> Overlap:
    return Overlap(
        rows=int(found.rows_in(exact, skeleton=False).sum()),
        molecules=int(_member(np.unique(found.exact), exact).sum()),
        skeleton_rows=int(found.rows_in(skeleton, skeleton=True).sum()),
        skeleton_molecules=int(_member(np.unique(found.skeleton), skeleton).sum()),
    )


def _member(values: HashArray, ordered: HashArray) -> BoolArray:
    """Whether each value is among the sorted ones."""
    if not len(ordered):
        return np.zeros(len(values), dtype=bool)
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    member: BoolArray = ordered[place] == values
    return member
