"""The leak filter: keeps held-out molecules out of the training rows, across all tasks.

A row leaks if its source is the source of a valid or test row of its task, or if its molecule (the captioned one, the
product) is the molecule of a valid or test row of any task: USPTO-MIT test products, for example, are among the
USPTO-50k training products. A build's workers compute identities; one pure function decides on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from bigchem.chemistry import NotationError, comparable, dotted, inchi_key, parse

HashArray = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]

SKELETON = 14
"""Characters of an InChIKey for formula and connections, without stereochemistry, isotopes and protonation."""


@dataclass(frozen=True)
class Identity:
    """Equal for two spellings of one molecule.

    exact: the standard InChIKey, equal for all spellings, and for tautomers that differ by a mobile hydrogen; different
    for stereoisomers. skeleton: its part without stereochemistry. If there is no InChI (dummy atoms): canonical SMILES
    with and without stereochemistry, dative bonds drawn as charges.
    """

    exact: str
    skeleton: str
    has_inchi: bool = True


@lru_cache(maxsize=1 << 14)
def identities(molecule: str) -> tuple[Identity, ...]:
    """The identity of each compound in `molecule` (joined by `.`, fragments of one by `~`) that RDKit can read."""
    found = []
    for compound in molecule.split("."):
        try:
            read = parse(dotted(compound))
        except NotationError:
            continue
        if key := inchi_key(read):
            found.append(Identity(key, key[:SKELETON]))
        else:
            found.append(Identity(comparable(read), comparable(read, stereo=False), has_inchi=False))
    return tuple(found)


def hash64(text: str) -> int:
    """A 64-bit hash of a text, equal on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Identities:
    """The molecules of one task's rows: row number, hashes of the exact identity and of the skeleton [n], ordered by
    row. A row may have several or none. rows: number of rows."""

    rows: int
    row: npt.NDArray[np.int64]
    exact: HashArray
    skeleton: HashArray

    @staticmethod
    def of(rows: Sequence[Sequence[Identity]]) -> Identities:
        """From the identities of each row."""
        row = np.repeat(np.arange(len(rows)), [len(found) for found in rows])
        flat = [found for listed in rows for found in listed]
        exact = np.array([hash64(found.exact) for found in flat], dtype=np.uint64)
        skeleton = np.array([hash64(found.skeleton) for found in flat], dtype=np.uint64)
        return Identities(len(rows), row, exact, skeleton)

    def rows_in(self, held_out: HashArray, skeleton: bool) -> BoolArray:
        """[rows] whether any molecule of the row is among the sorted hashes. skeleton: compare skeletons."""
        found = np.zeros(self.rows, dtype=bool)
        found[self.row[_member(self.skeleton if skeleton else self.exact, held_out)]] = True
        return found


@dataclass(frozen=True)
class Training:
    """Training rows of one task. about: their molecules. same_source: [rows] whether a held-out row has its source."""

    about: Identities
    same_source: BoolArray


@dataclass(frozen=True)
class Overlap:
    """Training rows of one task with molecules of one held-out set: rows and distinct molecules; the same ignoring
    stereochemistry."""

    rows: int
    molecules: int
    skeleton_rows: int
    skeleton_molecules: int


@dataclass(frozen=True)
class Leaks:
    """The leaks of one training task.

    rows: training rows checked. dropped: rows dropped. same_source: rows with the source of a held-out row of their
    task. unidentified: rows without a molecule that RDKit can read. by_held_out: by held-out set ("test/forward"); a
    row counts under each that has its molecule.
    """

    rows: int
    dropped: int
    same_source: int
    unidentified: int
    by_held_out: dict[str, Overlap]


def drop_leaked(
    train: Mapping[str, Training], held_out: Mapping[str, Identities], keep_out: str
) -> tuple[dict[str, BoolArray], dict[str, dict[str, object]]]:
    """([rows] whether each row stays, report), both by training task.

    held_out: by "split/task". keep_out: "exact", "skeleton", or "none", which drops nothing. The report's values are
    Leaks as plain dicts; only `dropped` depends on keep_out.
    """
    exact = {name: np.unique(found.exact) for name, found in held_out.items()}
    skeleton = {name: np.unique(found.skeleton) for name, found in held_out.items()}
    chosen = skeleton if keep_out == "skeleton" else exact
    everything = np.unique(np.concatenate([*chosen.values(), np.zeros(0, dtype=np.uint64)]))
    stays, report = {}, {}
    for task, rows in train.items():
        leaks = rows.same_source | rows.about.rows_in(everything, keep_out == "skeleton")
        stays[task] = ~leaks | (keep_out == "none")
        overlaps = {name: _overlap(rows.about, exact[name], skeleton[name]) for name in held_out}
        lost = Leaks(
            rows=rows.about.rows,
            dropped=int(np.count_nonzero(~stays[task])),
            same_source=int(np.count_nonzero(rows.same_source)),
            unidentified=rows.about.rows - len(np.unique(rows.about.row)),
            by_held_out={name: overlap for name, overlap in overlaps.items() if overlap.skeleton_rows},
        )
        report[task] = asdict(lost)
    return stays, report


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
