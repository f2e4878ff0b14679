"""One door for a text of any domain: what data readers, `predict`, `serve`, `score` and `evaluate` ask."""

from __future__ import annotations

from collections.abc import Collection

from bigchem.chemistry.molecules import dotted, parse, read_smiles
from bigchem.chemistry.notation import STRIPPED, NotationError, Reading, is_lost, read_text, smiles_of, strip_around


def read(text: str, domain: str, *, names: bool = False, strip: Collection[str] = STRIPPED) -> Reading:
    """A text of a domain, "chemistry" or "text", as it is used: repaired, and in chemistry readable by RDKit.

    NotationError, which says why, where it is none.
    """
    if domain != "chemistry":
        return read_text(text, strip)
    reading = read_smiles(text, names=names, strip=strip)
    parse(dotted(reading.text))
    return reading


def read_answer(text: str, domain: str, strip: Collection[str] = STRIPPED) -> Reading:
    """A text that is scored, which may be anything: repaired as far as the rule goes, and never refused.

    Doubled backslashes stay, since published string metrics count them. In what comes out of it without white space
    RDKit decides whether it is a molecule; what keeps white space is none.
    """
    bare, stripped = strip_around(text, strip)
    repairs = tuple(dict.fromkeys(stripped))
    if is_lost(bare, domain):
        return Reading(bare, (*repairs, "lost"))
    if domain != "chemistry" or bare.isalnum():
        return Reading(bare, repairs)
    try:
        reading = read_smiles(bare, strip=strip)
    except NotationError:
        return Reading(bare, repairs)
    if "backslashes" in reading.repairs:
        reading = smiles_of(bare, strip=strip)
    return Reading(reading.text, tuple(dict.fromkeys((*repairs, *reading.repairs))))
