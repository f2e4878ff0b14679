"""Where the atoms of a SMILES are: Schwaller's tokens, for splitting words and for masking whole atoms. Pure.

The expression is that of Schwaller et al., "Molecular Transformer" (ACS Cent. Sci. 2019, 5, 1572), with its redundant
alternatives left out; it covers SMILES, reaction SMILES and the `~` between fragments.
"""

from __future__ import annotations

import re

ATOM = r"(?:\[[^\[\]]+\]|Br?|Cl?|[NOSPFIbcnosp]|[()]|[.=#\-+\\/:~@?>*$]|%[0-9]{2}|[0-9])"
"""One token: a bracket atom, an atom, a bond, a branch, a ring closure. The syntax is both Python's and Oniguruma's."""

_TOKEN = re.compile(ATOM + "|.", re.DOTALL)


def atom_starts(smiles: str) -> list[int]:
    """Character offsets at which atom tokens start, ascending; a character that is in no token is one of its own.

    The tokens between the offsets, joined, are the text: the first offset is 0, and none is empty.
    """
    return [match.start() for match in _TOKEN.finditer(smiles)]


def atoms_of_words(space: str) -> str:
    r"""An Oniguruma expression that matches, one after the other, the atom tokens of a word that is SMILES.

    The word stands alone and begins with `space`, which stays with its first token. It is SMILES if tokens are all it
    holds, if it has a letter, and if it is not one capital at most and then small letters between punctuation: "no",
    "On", "(Boc)" are words, since aromatic atoms need ring closures. `\G`, the end of the match before, chains them.
    """
    word = rf"{space}[^A-Za-z0-9]*[A-Z]?[a-z]+[^A-Za-z0-9]*\z"
    whole = rf"\A(?!{word})(?=[^A-Za-z]*[A-Za-z])(?={space}{ATOM}+\z){space}"
    return rf"(?:{whole}|(?!\A)\G){ATOM}"
