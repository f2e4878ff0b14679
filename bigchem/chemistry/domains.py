"""Reading a text of either domain: the entry point of data readers, `predict`, `serve`, `score` and `evaluate`."""

from __future__ import annotations

from collections.abc import Collection

from bigchem.chemistry.molecules import dotted, parse, read_smiles, unmapped
from bigchem.chemistry.notation import STRIPPED, NotationError, Reading, is_lost, read_text, smiles_of, strip_around


def read(
    text: str, domain: str, *, names: bool = False, strip: Collection[str] = STRIPPED, selfies: bool = False
) -> Reading:
    """A text of a domain, "chemistry" or "text", repaired. Chemistry is checked to be readable by RDKit, and loses
    its atom maps, which would give a product away.

    NotationError, with the reason, if the text is not valid.
    """
    if domain != "chemistry":
        return read_text(text, strip)
    reading = read_smiles(text, names=names, strip=strip, selfies=selfies)
    parse(dotted(reading.text))
    return unmapped(reading)


def read_answer(text: str, domain: str, strip: Collection[str] = STRIPPED, selfies: bool = False) -> Reading:
    """A text to score, which may be anything: repaired as far as the rules go, never refused.

    Doubled backslashes and atom maps stay, since published string metrics count them. A result with white
    space is not a molecule; for any other, RDKit decides.
    """
    bare, stripped = strip_around(text, strip)
    repairs = tuple(dict.fromkeys(stripped))
    if is_lost(bare, domain):
        return Reading(bare, (*repairs, "lost"))
    if domain != "chemistry" or bare.isalnum():
        return Reading(bare, repairs)
    try:
        reading = read_smiles(bare, strip=strip, selfies=selfies)
    except NotationError:
        return Reading(bare, repairs)
    if "backslashes" in reading.repairs:
        reading = smiles_of(bare, strip=strip)
    return Reading(reading.text, tuple(dict.fromkeys((*repairs, *reading.repairs))))
