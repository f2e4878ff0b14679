"""Atom tokens of SMILES, for splitting words at atoms and for masking whole atoms. Pure.

The regular expression is from Schwaller et al., "Molecular Transformer" (ACS Cent. Sci. 2019, 5, 1572), without its
redundant alternatives; it covers SMILES, reaction SMILES and the `~` between fragments.
"""

import re

ATOM = r"(?:\[[^\[\]]+\]|Br?|Cl?|[NOSPFIbcnosp]|[()]|[.=#\-+\\/:~@?>*$]|%[0-9]{2}|[0-9])"
"""One token: a bracket atom, an atom, a bond, a branch, a ring closure. Valid in both Python and Oniguruma."""

_TOKEN = re.compile(ATOM + "|.", re.DOTALL)


def atom_starts(smiles: str) -> list[int]:
    """Character offsets at which atom tokens start, ascending. A character in no token counts as one itself.

    The tokens cover the text: the first offset is 0, and none is empty.
    """
    return [match.start() for match in _TOKEN.finditer(smiles)]


def atoms_of_words(space: str) -> str:
    r"""An Oniguruma expression that matches, one after another, the atom tokens of a word that is SMILES.

    The input is one word that begins with `space`, which stays with its first token. A word is SMILES if it consists of
    tokens, has a letter, and is not natural language: an optional capital, then small letters, between punctuation.
    "no", "On", "(Boc)" are words, since aromatic atoms need ring closures. `\G`, the last match's end, chains matches.
    """
    word = rf"{space}[^A-Za-z0-9]*[A-Z]?[a-z]+[^A-Za-z0-9]*\z"
    whole = rf"\A(?!{word})(?=[^A-Za-z]*[A-Za-z])(?={space}{ATOM}+\z){space}"
    return rf"(?:{whole}|(?!\A)\G){ATOM}"
