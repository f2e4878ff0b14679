"""Molecules through RDKit: size-limited, without its log, one canonical form for all drawings of a molecule."""

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any, NamedTuple

from rdkit import Chem, rdBase

from bigchem.base.installed.packages import install_extra
from bigchem.chemistry.notation import (
    MAX_ATOMS,
    STRIPPED,
    NotationError,
    Reading,
    atom_maps,
    check_size,
    is_selfies,
    may_be_selfies,
    smiles_of,
    without_maps,
)

rdBase.DisableLog("rdApp.*")

_STRICT: Any = Chem.SmilesParserParams()
_STRICT.parseName = False
_STRICT.allowCXSMILES = False

JOINTS = re.compile(r"([.~])")
"""Separators in bigchem's notation: `.` between molecules, `~` between the fragments of one compound."""
_ROUNDS = 8
"""Rereads after which a canonical form that neither settles nor cycles is taken as it is. None was seen."""
MAX_RING_CROWDING = 120
"""RDKit's MACCS keys take over 25 s for a five-dimensional cube, 32 atoms; see crowded. Fullerenes have 0."""
MAX_CROWDING = 300
"""RDKit's path fingerprint counts branched paths: 12 s for four adjacent atoms of 16 neighbours each."""


_BUSY = Chem.MolFromSmarts("[!R0!R1!R2!R3,!D0!D1!D2!D3!D4]")
"""An atom in more than three rings, or with more than four neighbours."""


def dotted(smiles: str) -> str:
    """Standard SMILES from bigchem's, where `~` joins the fragments of one compound; in SMILES it is the any-bond."""
    return smiles.replace("~", ".")


def one_compound(smiles: str) -> str:
    """bigchem's SMILES from standard SMILES of one compound, whatever its fragments."""
    return smiles.replace(".", "~")


def parse(smiles: str) -> Chem.Mol:
    """RDKit's molecule, without atom maps. NotationError for white space, SMILES over the limits, SMILES that RDKit
    cannot read, and the empty string, which RDKit takes for a molecule of no atoms."""
    check_size(smiles)
    if not smiles.isprintable() or len(smiles.split()) > 1:
        raise NotationError(f"a space in SMILES: '{smiles[:60]}'")
    molecule = Chem.MolFromSmiles(without_maps(smiles), _STRICT)
    if molecule is None or not molecule.GetNumAtoms():
        raise NotationError(f"RDKit cannot read '{smiles[:60]}'")
    return molecule


def try_parse(smiles: str) -> Chem.Mol | None:
    """`parse`, or None if it raises."""
    try:
        return parse(smiles)
    except NotationError:
        return None


def read_smiles(text: str, *, names: bool = False, strip: Collection[str] = STRIPPED, selfies: bool = False) -> Reading:
    """SMILES from a text that should be SMILES, by the rules of notation.py. NotationError if it is not.

    selfies: decode texts that may be either. Doubled backslashes become single: the ChEBI-20 files were escaped once
    too often, and `\\\\` means nothing.
    """
    reading = smiles_of(text, names=names, strip=strip)
    smiles, repairs = reading.text, reading.repairs
    if smiles.startswith("InChI="):
        return Reading(_from_inchi(smiles), (*repairs, "inchi"))
    doubtful = may_be_selfies(smiles)
    if is_selfies(smiles) or (selfies and doubtful):
        return Reading(_from_selfies(smiles), (*repairs, "selfies"))
    if doubtful:
        return Reading(smiles, (*repairs, "doubtful"))
    if "\\\\" in smiles:
        return Reading(smiles.replace("\\\\", "\\"), (*repairs, "backslashes"))
    return reading


@lru_cache(maxsize=1 << 16)
def canonical(smiles: str) -> str:
    """RDKit's canonical isomeric SMILES, by `fixed_point`. Cached: reagents recur."""
    return fixed_point(parse(smiles), smiles)


def fixed_point(molecule: Chem.Mol, written: str = "") -> str:
    """RDKit's canonical SMILES of a molecule, reread until it is stable.

    RDKit alternates between two forms of some molecules, each the canonical form of the other; of such a cycle the
    lexicographically first is taken. written: the text that the molecule was read from; if it is already canonical,
    nothing is reread.
    """
    found = [written, str(Chem.MolToSmiles(molecule))]
    for _ in range(_ROUNDS):
        if found[-1] in found[:-1]:
            return min(found[found.index(found[-1]) : -1])
        again = Chem.MolFromSmiles(found[-1], _STRICT)
        if again is None:  # RDKit cannot read everything that it writes
            break
        found.append(str(Chem.MolToSmiles(again)))
    return found[1]


def unmapped(reading: Reading) -> Reading:
    """SMILES that RDKit can read, without atom maps. If there were any, each fragment becomes canonical in its place:
    the brackets that held a map would remain otherwise."""
    if not atom_maps(reading.text):
        return reading
    smiles = without_maps(reading.text)
    try:
        written = "".join(part if part in ".~" else canonical(part) for part in JOINTS.split(smiles))
        parse(dotted(written))
    except NotationError:  # a ring bond across a dot, or one of the few texts that RDKit writes and cannot read
        written = smiles
    return Reading(written, (*reading.repairs, "maps"))


def charged(molecule: Chem.Mol) -> Chem.Mol:
    """The molecule with every dative bond as a single bond between charges: L->M becomes [L+][M-], as complexes are
    often drawn. InChI refuses arrows, and both drawings of a complex have this form."""
    arrows = [bond for bond in molecule.GetBonds() if bond.GetBondType() == Chem.BondType.DATIVE]
    if not arrows:
        return molecule
    drawn = Chem.RWMol(molecule)
    for place in [arrow.GetIdx() for arrow in arrows]:
        bond = drawn.GetBondWithIdx(place)
        for atom, charge in ((bond.GetBeginAtom(), 1), (bond.GetEndAtom(), -1)):
            atom.SetNumExplicitHs(atom.GetTotalNumHs())
            atom.SetNoImplicit(True)
            atom.SetFormalCharge(atom.GetFormalCharge() + charge)
        bond.SetBondType(Chem.BondType.SINGLE)
    drawn.UpdatePropertyCache(strict=False)
    return drawn.GetMol()


def comparable(molecule: Chem.Mol, stereo: bool = True, written: str = "") -> str:
    """Canonical SMILES, equal for drawings with arrows and with charges. stereo: keep stereochemistry."""
    drawn = charged(molecule)
    if stereo:
        return fixed_point(drawn, written)
    flat = Chem.Mol(drawn)
    Chem.RemoveStereochemistry(flat)
    return fixed_point(flat)


def inchi_key(molecule: Chem.Mol) -> str:
    """The standard InChIKey, arrows drawn as charges; "" if there is none (dummy atoms, more than 1,023 atoms)."""
    with rdBase.BlockLogs():
        return str(Chem.MolToInchiKey(molecule) or Chem.MolToInchiKey(charged(molecule)))


REMEMBERED = 1 << 13
"""Molecules whose costly properties are kept, some 20 kB each: a test set's references recur with each model's
predictions."""
_remembered_key = lru_cache(maxsize=REMEMBERED)(inchi_key)


class Same(NamedTuple):
    """same: whether two molecules are equal. by_inchi: decided by InChI; otherwise neither has one, and canonical
    SMILES were compared."""

    same: bool
    by_inchi: bool


def same_molecule(first: Chem.Mol, second: Chem.Mol) -> Same:
    """Whether two molecules have the same InChI or, if neither has one, the same canonical SMILES."""
    if first.GetNumHeavyAtoms() != second.GetNumHeavyAtoms() or _elements(first) != _elements(second):
        # Neither InChI nor SMILES can agree then, and InChI is slow.
        return Same(False, True)
    keys = (_remembered_key(first), _remembered_key(second))
    if any(keys):
        return Same(keys[0] == keys[1], True)
    return Same(comparable(first) == comparable(second), False)


def _elements(molecule: Chem.Mol) -> list[int]:
    return sorted(number for atom in molecule.GetAtoms() if (number := atom.GetAtomicNum()) > 1)


def crowded(molecule: Chem.Mol) -> bool:
    """Whether fingerprints of the molecule could take minutes: too many atoms in more than three rings, or with more
    than four neighbours."""
    if not molecule.HasSubstructMatch(_BUSY):  # true for most molecules; the counts below are slow
        return False
    rings = molecule.GetRingInfo()
    rings_over = neighbours_over = 0
    for atom in molecule.GetAtoms():
        rings_over += max(0, rings.NumAtomRings(atom.GetIdx()) - 3)
        neighbours_over += max(0, atom.GetDegree() - 4) ** 2
    return rings_over > MAX_RING_CROWDING or neighbours_over > MAX_CROWDING


def has_carbon(smiles: str) -> bool:
    """Whether it has a carbon atom."""
    return any(atom.GetAtomicNum() == 6 for atom in parse(smiles).GetAtoms())


def _from_inchi(text: str) -> str:
    check_size(text)
    with rdBase.BlockLogs():
        molecule = Chem.MolFromInchi(text)
    if molecule is None or not 0 < molecule.GetNumAtoms() <= MAX_ATOMS:
        raise NotationError(f"RDKit cannot read the InChI '{text[:60]}'")
    return fixed_point(molecule)


def _from_selfies(text: str) -> str:
    try:
        import selfies
    except ImportError:
        raise NotationError(f"SELFIES, not SMILES: '{text[:60]}' ({install_extra('selfies')} to decode them)") from None
    check_size(text)
    try:
        smiles = str(selfies.decoder(text))
    except selfies.DecoderError:
        smiles = ""
    if not smiles:
        raise NotationError(f"the package selfies cannot decode '{text[:60]}'")
    return smiles
