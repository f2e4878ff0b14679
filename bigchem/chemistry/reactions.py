"""Reaction SMILES: sections, fragment notes, compounds.

How a reaction `precursors>reagents>products` is read:

- It is split at every `>` that is not part of a dative bond (`->`), as RDKit's reaction parser does.
- Atom maps are dropped, RDKit canonicalises every fragment, and compounds are sorted, so rows that differ only in
  spelling become equal. A compound listed twice stays twice.
- Fragments grouped by a `|f:0.2,4.5|` note are one compound, joined by `~` as in Text+Chem T5's data. Other notes
  (`^1:` radicals) repeat what the bracket atoms already say and are ignored.
- Reagents are mixed into the precursors (USPTO-MIT "mixed") or dropped.
- Of several products, those without carbon or also among the precursors do not count (counter-ions, HCl, leftovers).
  If one remains, it is the product. If several do, the row is refused, or with `all_products` they form the product
  side together, sorted. In USPTO-MIT test, 1,352 of 40,000 rows have several, and 156 are refused.
- A single product that is among the precursors is refused: nothing reacts.
"""

import re
from collections.abc import Collection

from bigchem.chemistry.molecules import canonical, dotted, has_carbon
from bigchem.chemistry.notation import NotationError, atom_maps, joined, without_maps

NOTHING_REACTS = "the product is also a reactant: nothing reacts"
"""The reason for refusing such a reaction."""

_ARROW = re.compile(r"(?<!-)>")
_NOTE = re.compile(r"[|,]f:(\d+(?:\.\d+)*(?:,\d+(?:\.\d+)*)*)(?=[|,])")


def sections(reaction: str) -> tuple[str, str, str]:
    """Precursors, reagents and products of a reaction SMILES; any may be empty. NotationError for anything else."""
    found = _ARROW.split(reaction)
    if len(found) != 3:
        raise NotationError("not a reaction: two '>' expected")
    return found[0], found[1], found[2]


def split_reaction(
    reaction: str, drop_reagents: bool = False, own_section: bool = True, all_products: bool = False
) -> tuple[str, str]:
    """(precursors, products) of a reaction SMILES, canonical: see the module's docstring.

    own_section: reagents are between the two `>`; otherwise they are the precursors not mapped into the product.
    NotationError if it is not a reaction or RDKit cannot read a compound.
    """
    smiles, note = _without_note(reaction)
    left, middle, right = _group(sections(smiles), _groups(note))
    if drop_reagents and not own_section:
        maps = frozenset[str]().union(*(atom_maps(compound) for compound in right))
        if not maps:
            raise NotationError("reagents cannot be told from reactants: the product has no atom maps")
        taken = [compound for compound in left + middle if atom_maps(compound) & maps]
    else:
        taken = left if drop_reagents else left + middle
    if not taken:
        raise NotationError("no reactants")
    spelled = {compound: _compound(compound) for compound in left + middle}
    products = _products([_compound(compound) for compound in right], spelled.values())
    if len(products) == 1 and products[0] in {spelled[compound] for compound in taken}:
        raise NotationError(NOTHING_REACTS)
    if len(products) != 1 and not (products and all_products):
        raise NotationError(f"{len(products)} products")
    return ".".join(sorted(spelled[compound] for compound in taken)), ".".join(products)


def _without_note(reaction: str) -> tuple[str, str]:
    """(the reaction, the note after it); a reaction that was split for a tokenizer is joined."""
    smiles, _, note = reaction.strip().partition(" ")
    if note and not note.lstrip().startswith("|") and (whole := joined(reaction)) is not None:
        return whole, ""
    return smiles, note


def _group(parts: tuple[str, str, str], groups: list[list[int]]) -> list[list[str]]:
    """The compounds of each section. Groups number the fragments across all three sections; `~` joins a compound's."""
    compounds: list[list[str]] = []
    first = 0
    for part in parts:
        fragments = part.split(".") if part else []
        inside = [group for group in groups if first <= group[0] < first + len(fragments)]
        members = {index for group in inside for index in group}
        last = first + len(fragments) - 1
        if any(not first <= index <= last for index in members):
            raise NotationError("a fragment note groups across '>' or past the end")
        together = ["~".join(fragments[index - first] for index in group) for group in inside]
        compounds.append(together + [f for index, f in enumerate(fragments, start=first) if index not in members])
        first = last + 1
    if any(group[0] >= first for group in groups):
        raise NotationError("a fragment note groups across '>' or past the end")
    return compounds


def _groups(note: str) -> list[list[int]]:
    """[[0, 2], [4, 5]] from `|f:0.2,4.5|`."""
    match = _NOTE.search(note)
    if match is None:
        return []
    groups = [[int(index) for index in group.split(".")] for group in match.group(1).split(",")]
    if sum(map(len, groups)) != len({index for group in groups for index in group}):
        raise NotationError("a fragment note names a fragment twice")
    return groups


def _compound(fragments: str) -> str:
    text = without_maps(fragments)
    if "~" not in text:
        return canonical(text)
    return "~".join(sorted(map(canonical, text.split("~"))))


def _products(products: list[str], precursors: Collection[str]) -> list[str]:
    candidates = sorted(set(products))
    if len(candidates) > 1:
        candidates = [p for p in candidates if p not in precursors and has_carbon(dotted(p))]
    return candidates
