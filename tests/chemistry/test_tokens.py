"""Atom tokens of SMILES."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bigchem.chemistry.tokens import atom_starts


def tokens(smiles: str) -> list[str]:
    ends = [*atom_starts(smiles), len(smiles)]
    return [smiles[start:end] for start, end in pairwise(ends)]


def test_atoms_bonds_branches_and_rings_are_tokens() -> None:
    split = "C [C@@H] ( Br ) C %12 Cl ~ [Na+] . c 1 c c c [nH] 1 > > F / C = C \\ F"
    assert tokens(split.replace(" ", "")) == split.split()


@given(st.text(max_size=40))
def test_tokens_joined_are_the_text_whatever_it_is(text: str) -> None:
    assert "".join(tokens(text)) == text
    assert "" not in tokens(text)
