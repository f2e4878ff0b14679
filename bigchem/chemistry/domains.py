"""Reading a text of any domain: the entry point of data readers, `predict`, `serve`, `score` and `evaluate`."""

import re
from collections.abc import Collection
from dataclasses import replace

from bigchem.chemistry.molecules import dotted, parse, read_smiles, unmapped
from bigchem.chemistry.notation import STRIPPED, NotationError, Reading, is_lost, read_text, smiles_of, strip_around
from bigchem.chemistry.reactions import sections
from bigchem.tasks import CHEMISTRY

_PROTEIN = re.compile(r"[A-Za-z*\-]+")
_FORMULA = re.compile(r"(?:[A-Z][a-z]?\d*|[().+\-\[\]·]\d*)+")


def read(
    text: str, domain: str, *, names: bool = False, strip: Collection[str] = STRIPPED, selfies: bool = False
) -> Reading:
    """A text of a domain of bigchem.tasks, repaired. SMILES are checked to be readable by RDKit, and lose their atom
    maps, which would give a product away.

    NotationError, with the reason, if the text is not valid.
    """
    if domain == "reaction":
        return _whole_reaction(text, strip, selfies)
    if domain in CHEMISTRY:
        reading = read_smiles(text, names=names, strip=strip, selfies=selfies)
        parse(dotted(reading.text))
        return unmapped(reading)
    reading = read_text(text, strip)
    if domain == "protein" and not _PROTEIN.fullmatch(reading.text):
        raise NotationError(f"not a protein's sequence: '{reading.text[:60]}'")
    if domain == "formula" and not _FORMULA.fullmatch(reading.text):
        raise NotationError(f"not a molecular formula: '{reading.text[:60]}'")
    return reading


def read_answer(text: str, domain: str, strip: Collection[str] = STRIPPED, selfies: bool = False) -> Reading:
    """A text to score, which may be anything: repaired as far as the rules go, never refused.

    Doubled backslashes and atom maps stay, since published string metrics count them. A result with white
    space is not a molecule; for any other, RDKit decides.
    """
    bare, stripped = strip_around(text, strip)
    repairs = tuple(dict.fromkeys(stripped))
    chemistry = domain in CHEMISTRY
    if is_lost(bare, chemistry=chemistry):
        return Reading(bare, (*repairs, "lost"))
    if not chemistry or bare.isalnum():
        return Reading(bare, repairs)
    try:
        reading = read_smiles(bare, strip=strip, selfies=selfies)
    except NotationError:
        return Reading(bare, repairs)
    if "backslashes" in reading.repairs:
        reading = smiles_of(bare, strip=strip)
    return Reading(reading.text, tuple(dict.fromkeys((*repairs, *reading.repairs))))


def _whole_reaction(text: str, strip: Collection[str], selfies: bool) -> Reading:
    """`reactants>reagents>product`, each part read as SMILES."""
    bare, stripped = strip_around(text, strip)
    parts = [part.strip() for part in sections(bare)]
    if not parts[0] or not parts[-1]:
        raise NotationError(f"a reaction without reactants or product: '{bare[:60]}'")
    read_parts = [read(part, "reagents", strip=strip, selfies=selfies) if part else Reading("") for part in parts]
    repairs = (*stripped, *(repair for part in read_parts for repair in part.repairs))
    return replace(Reading(">".join(part.text for part in read_parts)), repairs=tuple(dict.fromkeys(repairs)))
