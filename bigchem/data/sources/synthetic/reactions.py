"""Reactions that RDKit runs on grown reactants, so the product really follows from them.

Reactants are drawn so that a reaction has only one site and the product reveals its origin: bromides on heteroarenes
and boronic acids on benzenes, aldehydes on arenes and isocyanates on benzenes, and so on. Retrosynthesis therefore has
one answer for nearly every product.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from random import Random
from typing import Any

from rdkit import Chem
from rdkit.Chem.rdChemReactions import ReactionFromSmarts

from bigchem.data.sources.synthetic.molecules import (
    ALKYLS,
    BENZENE,
    CYCLIC_AMINES,
    DECORATIONS,
    arene,
    benzene,
    canonical,
    decorate,
    fill,
    heteroarene,
    radical,
)

Draw = Callable[[Random], str]

_UNACTIVATED = ("C", "CC", "OC", "C(C)C")
_PARA_NITRO = "c1{}c{}cc([N+](=O)[O-])c{}c1"
_ORTHO_NITRO = "c1{}c([N+](=O)[O-])c{}c{}cc1{}"
_AMINO_ESTERS = ("N[C@@H](C)C(=O)OC", "N[C@@H](C(C)C)C(=O)OC", "N[C@@H](Cc1ccccc1)C(=O)OC", "NCC(=O)OC")
_NUCLEOPHILE = "[NX3;H2,H1;!$(N~[C,S]=[O,N,S]):1]"


@dataclass(frozen=True)
class Template:
    """A kind of reaction: its SMARTS over the reactants in order, a draw for each reactant, and the reagents."""

    name: str
    smarts: str
    draws: tuple[Draw, ...]
    reagents: tuple[str, ...]


@dataclass(frozen=True)
class Reaction:
    """One reaction. All SMILES are canonical; a salt among the reagents is one SMILES with dots."""

    template: str
    reactants: tuple[str, ...]
    reagents: tuple[str, ...]
    product: str

    def side(self, with_reagents: bool) -> str:
        """The left-hand side in RDKit's order: every fragment, sorted, joined by dots."""
        molecules = self.reactants + self.reagents if with_reagents else self.reactants
        return ".".join(sorted(fragment for molecule in molecules for fragment in molecule.split(".")))


def reaction(rng: Random) -> Reaction:
    """Draws a template and its reactants, and runs it."""
    template = rng.choice(TEMPLATES)
    reactants = tuple(canonical(draw(rng)) for draw in template.draws)
    return Reaction(
        template.name,
        reactants,
        tuple(canonical(reagent) for reagent in template.reagents),
        products(template, reactants)[0],
    )


def products(template: Template, reactants: tuple[str, ...]) -> list[str]:
    """The distinct canonical products of all matches, sorted; one if the reactants have one site."""
    matches = _compiled(template.smarts).RunReactants([_mol(reactant) for reactant in reactants])
    # RunReactants does not sanitise its products: reading them again checks them and makes them canonical.
    return sorted({canonical(Chem.MolToSmiles(match[0])) for match in matches})


@cache
def _compiled(smarts: str) -> Any:
    return ReactionFromSmarts(smarts)


@lru_cache(maxsize=1024)
def _mol(smiles: str) -> Any:
    return Chem.MolFromSmiles(smiles)


def _with(group: str, draw: Draw) -> Draw:
    """A functional group on a radical."""
    return lambda rng: group + draw(rng)


def _benzyl(rng: Random) -> str:
    return rng.choice(("C", "CC")) + arene(rng)


def _alkyl(rng: Random) -> str:
    """A radical bound through a tetrahedral carbon."""
    return _benzyl(rng) if rng.random() < 0.6 else rng.choice(ALKYLS)


def _scaffold(rng: Random) -> str:
    """Mostly a benzene with an ether, amide or sulfonamide: single reactants need the variety."""
    if rng.random() < 0.2:
        return arene(rng)
    side = rng.choice(("O", "NC(=O)", "C(=O)N", "S(=O)(=O)N", "N(C)C(=O)")) + _alkyl(rng)
    places = rng.sample(range(1, 6), 2)
    return fill(BENZENE, {places[0]: side, places[1]: rng.choice(("", *DECORATIONS))})


def _terminus(rng: Random) -> str:
    """The substituent of a terminal alkyne."""
    return benzene(rng) if rng.random() < 0.7 else rng.choice(ALKYLS)


def _amine(rng: Random) -> str:
    """Primary, N-methyl or cyclic amine, or an amino acid's ester; the nitrogen comes first."""
    kind = rng.random()
    if kind < 0.15:
        return rng.choice(_AMINO_ESTERS)
    if kind < 0.4:
        return _cyclic_amine(rng)
    return ("N" if kind < 0.8 else "N(C)") + radical(rng)


def _cyclic_amine(rng: Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(CYCLIC_AMINES)
    return fill(rng.choice(("N1CCN{}CC1", "N1CCC{}CC1")), {0: benzene(rng)})


def _alkyl_amine(rng: Random) -> str:
    """Neither aromatic nor benzylic, so it cannot be mistaken for the other half of a reductive amination."""
    return _cyclic_amine(rng) if rng.random() < 0.6 else rng.choice(("N", "N(C)")) + rng.choice(ALKYLS)


def _activated_halide(rng: Random) -> str:
    """A chloropyrimidine, or a fluorobenzene with a nitro group ortho or para to the fluorine."""
    kind = rng.random()
    if kind < 0.4:
        return "Cl" + decorate(rng, "c1{}nc{}c{}c{}n1", _UNACTIVATED)
    return "F" + decorate(rng, _PARA_NITRO if kind < 0.7 else _ORTHO_NITRO, _UNACTIVATED)


def _ketone(rng: Random) -> str:
    return f"O=C({rng.choice(('C', 'CC', 'C1CC1', 'C(C)C'))})" + _scaffold(rng)


def _boc_amine(rng: Random) -> str:
    boc = "C(=O)OC(C)(C)C"
    if rng.random() < 0.5:
        return f"N({boc})" + rng.choice(("C", "CC")) + _scaffold(rng)
    ring = rng.choice(("N1{}CCN{}CC1", "N1{}CCC{}CC1", "N1{}CCC{}C1"))
    return fill(ring, {0: boc, 1: arene(rng)})


_ACTIVATORS = ("CCN=C=NCCCN(C)C", "CCN(C(C)C)C(C)C")
_CARBONATE = "O=C([O-])[O-].[K+].[K+]"

TEMPLATES: tuple[Template, ...] = (
    Template(
        "amide coupling",
        "[CX3:2](=[O:3])[OX2H1]." + _NUCLEOPHILE + ">>[C:2](=[O:3])[N:1]",
        (_with("OC(=O)", radical), _amine),
        _ACTIVATORS,
    ),
    Template(
        "esterification",
        "[CX3:2](=[O:3])[OX2H1].[CX4:4][OX2H1:1]>>[C:2](=[O:3])[O:1][C:4]",
        (_with("OC(=O)", arene), _with("O", _alkyl)),
        ("O=S(=O)(O)O",),
    ),
    Template(
        "ester hydrolysis",
        "[CX3:2](=[O:3])[OX2][CH3]>>[C:2](=[O:3])O",
        (_with("COC(=O)", _scaffold),),
        ("[Li+].[OH-]",),
    ),
    Template(
        "Suzuki coupling",
        "[c:1][Br].[c:2]B(O)O>>[c:1]-[c:2]",
        (_with("Br", heteroarene), _with("OB(O)", benzene)),
        (_CARBONATE, "[Pd]"),
    ),
    Template(
        "Sonogashira coupling",
        "[c:1][I].[CH1:2]#[C:3]>>[c:1][C:2]#[C:3]",
        (_with("I", heteroarene), _with("C#C", _terminus)),
        ("CCN(CC)CC", "[Cu]I", "[Pd]"),
    ),
    Template(
        "reductive amination",
        "[CX3H1:2]=O." + _NUCLEOPHILE + ">>[CH2:2][N:1]",
        (_with("O=C", arene), _alkyl_amine),
        ("CC(=O)O[BH-](OC(C)=O)OC(C)=O.[Na+]",),
    ),
    Template("Boc removal", "[N:1]C(=O)OC([CH3])([CH3])[CH3]>>[N:1]", (_boc_amine,), ("O=C(O)C(F)(F)F",)),
    Template(
        "aromatic substitution",
        "[$(c(:n):n),$(c1c([N+](=O)[O-])cccc1),$(c1ccc([N+](=O)[O-])cc1):2][F,Cl]." + _NUCLEOPHILE + ">>[c:2][N:1]",
        (_activated_halide, _amine),
        (_CARBONATE,),
    ),
    Template(
        "Williamson ether synthesis",
        "[c:2][OX2H1:1].[CX4:3]Br>>[c:2][O:1][C:3]",
        (_with("O", benzene), _with("Br", _alkyl)),
        (_CARBONATE,),
    ),
    Template(
        "sulfonamide formation",
        "[SX4:2](=[O:3])(=[O:4])Cl." + _NUCLEOPHILE + ">>[S:2](=[O:3])(=[O:4])[N:1]",
        (_with("ClS(=O)(=O)", arene), _amine),
        ("CCN(CC)CC",),
    ),
    Template(
        "urea formation",
        "[NX2:2]=[CX2:3]=[O:4]." + _NUCLEOPHILE + ">>[N:2][C:3](=[O:4])[N:1]",
        (_with("O=C=N", benzene), _alkyl_amine),
        ("ClCCl",),
    ),
    Template("nitro reduction", "[c:1][N+](=O)[O-]>>[c:1]N", (_with("O=[N+]([O-])", _scaffold),), ("[H][H]", "[Pd]")),
    Template("ketone reduction", "[CX3;$(C([#6])[#6]):2]=[O:3]>>[C:2][O:3]", (_ketone,), ("[BH4-].[Na+]",)),
)
