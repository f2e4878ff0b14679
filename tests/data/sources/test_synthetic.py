"""The synthetic corpus: a pure function of (seed, line), chemically true, and varied."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from random import Random

import pytest
from rdkit import Chem
from synthetic_rows import ROWS, atoms, config, of, read

from bigchem.data.sources.base import Record, Row
from bigchem.data.sources.synthetic import captions
from bigchem.data.sources.synthetic import molecules as synthetic_molecules
from bigchem.data.sources.synthetic import reactions as synthetic_reactions
from bigchem.data.sources.synthetic.corpus import Synthetic
from bigchem.tasks import shipped


@pytest.fixture(scope="module")
def reactions() -> list[synthetic_reactions.Reaction]:
    return [synthetic_reactions.reaction(Random(f"reaction {number}")) for number in range(1500)]


# A function of (seed, line)


def test_a_row_depends_neither_on_order_nor_on_how_many_are_asked(corpus: list[Row]) -> None:
    assert read(config(seed=7, rows=200)) == corpus[:200]
    backwards = [
        Synthetic().rows(Record("synthetic", line, ()), config(seed=7, rows=1), shipped())[0]
        for line in range(200, 0, -1)
    ]
    assert backwards[::-1] == corpus[:200]


def test_another_process_with_another_hash_seed_draws_the_same_rows(corpus: list[Row]) -> None:
    program = (
        "from bigchem.data.sources.base import SourceConfig\n"
        "from bigchem.data.sources.synthetic.corpus import Synthetic\n"
        "from bigchem.tasks import shipped\n"
        "source = SourceConfig(format='synthetic', split='train', rows=100, seed=7)\n"
        "print(*(Synthetic().rows(r, source, shipped())[0].key for r in Synthetic().records(source, shipped())))\n"
    )
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    keys = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True).stdout
    assert keys.split() == [row.key for row in corpus[:100]]


def test_rows_go_round_the_tasks_in_turn(corpus: list[Row]) -> None:
    assert Counter(row.task for row in corpus) == dict.fromkeys(shipped().scored, ROWS // 5)
    two = ("forward", "actions")
    assert [row.task for row in read(config(tasks=two, rows=6))] == ["actions", "forward"] * 3


def test_another_seed_is_another_corpus(corpus: list[Row]) -> None:
    other = {row.key for row in read(config(seed=8))}
    assert len(other & {row.key for row in corpus}) < 0.1 * ROWS


def test_rows_are_mostly_distinct(corpus: list[Row]) -> None:
    molecules = [row.molecule for row in corpus if row.molecule]
    assert len({row.key for row in corpus}) > 0.95 * len(corpus)
    assert len(set(molecules)) > 0.95 * len(molecules)


def test_texts_are_short_and_never_empty(corpus: list[Row]) -> None:
    lengths = sorted(len(text) for row in corpus for text in (row.source, row.target))
    assert lengths[0] > 0
    assert lengths[len(lengths) // 2] < 160
    assert lengths[-1] <= 400


# Molecules


def test_every_molecule_parses_and_is_canonical(corpus: list[Row]) -> None:
    smiles = {row.molecule for row in corpus if row.molecule}
    for row in of(corpus, "forward", "retrosynthesis"):
        smiles |= {row.source, row.target}
    assert all(Chem.MolToSmiles(Chem.MolFromSmiles(text)) == text for text in smiles)


def test_molecules_are_of_moderate_size(corpus: list[Row]) -> None:
    sizes = sorted(Chem.MolFromSmiles(row.molecule).GetNumHeavyAtoms() for row in corpus if row.molecule)
    low, high = sizes[len(sizes) // 20], sizes[-len(sizes) // 20]
    assert 8 <= low < high <= 32


def test_the_row_says_which_molecule_it_is_about(corpus: list[Row]) -> None:
    side = {"captioning": "source", "generation": "target", "forward": "target", "retrosynthesis": "source"}
    assert all(row.molecule == getattr(row, side[row.task]) for row in corpus if row.task != "actions")
    assert all(row.molecule is None for row in of(corpus, "actions"))


def test_the_corpus_has_stereochemistry_both_ways(corpus: list[Row]) -> None:
    text = " ".join(row.molecule or "" for row in corpus)
    assert all(mark in text for mark in ("/C=C/", "\\", "[C@H]", "[C@@H]"))


@pytest.mark.parametrize(
    "template",
    [
        *synthetic_molecules.BENZENES[-2:],
        *synthetic_molecules.HETEROARENES,
        *synthetic_molecules.ALICYCLES,
        *synthetic_molecules.CHAINS,
    ],
)
def test_every_place_of_a_block_takes_every_group(template: str) -> None:
    groups = (*synthetic_molecules.DECORATIONS, *synthetic_molecules.END_GROUPS, *synthetic_molecules.CYCLIC_AMINES)
    for group in groups:
        filled = synthetic_molecules.fill(template, dict.fromkeys(range(template.count("{}")), group))
        assert synthetic_molecules.canonical(filled)


def test_what_is_no_smiles_is_refused() -> None:
    with pytest.raises(ValueError, match="not a SMILES"):
        synthetic_molecules.canonical("c1cc")
    with pytest.raises(ValueError, match="not a SMILES"):
        captions.caption("C(C)(C)(C)(C)C")


# Reactions

LOST: dict[str, tuple[dict[str, int], ...]] = {
    # Atoms of the reactants that the product lacks (negative: that it gained).
    "amide coupling": ({"H": 2, "O": 1},),
    "esterification": ({"H": 2, "O": 1},),
    "ester hydrolysis": ({"C": 1, "H": 2},),
    "Suzuki coupling": ({"Br": 1, "B": 1, "O": 2, "H": 2},),
    "Sonogashira coupling": ({"H": 1, "I": 1},),
    "reductive amination": ({"O": 1},),
    "Boc removal": ({"C": 5, "H": 8, "O": 2},),
    "aromatic substitution": ({"H": 1, "F": 1}, {"H": 1, "Cl": 1}),
    "Williamson ether synthesis": ({"H": 1, "Br": 1},),
    "sulfonamide formation": ({"H": 1, "Cl": 1},),
    "urea formation": ({},),
    "nitro reduction": ({"O": 2, "H": -2},),
    "ketone reduction": ({"H": -2},),
}


def test_every_template_is_drawn(reactions: list[synthetic_reactions.Reaction]) -> None:
    drawn = Counter(reaction.template for reaction in reactions)
    assert set(drawn) == {template.name for template in synthetic_reactions.TEMPLATES} == set(LOST)
    assert min(drawn.values()) > 50


def test_reactants_have_one_site_and_the_product_follows(reactions: list[synthetic_reactions.Reaction]) -> None:
    templates = {template.name: template for template in synthetic_reactions.TEMPLATES}
    for reaction in reactions:
        assert synthetic_reactions.products(templates[reaction.template], reaction.reactants) == [reaction.product]
        assert "." not in reaction.product


def test_atoms_are_conserved_up_to_the_by_product(reactions: list[synthetic_reactions.Reaction]) -> None:
    for reaction in reactions:
        lost = sum((atoms(reactant) for reactant in reaction.reactants), Counter())
        lost.subtract(atoms(reaction.product))
        assert {symbol: count for symbol, count in lost.items() if count} in LOST[reaction.template], reaction


def test_stereocentres_survive_the_reaction(reactions: list[synthetic_reactions.Reaction]) -> None:
    def labels(smiles: str) -> list[str]:
        return [label for _, label in Chem.FindMolChiralCenters(Chem.MolFromSmiles(smiles))]

    pairs = [
        (labels(".".join(reaction.reactants)), labels(reaction.product))
        for reaction in reactions
        if any("@" in reactant for reactant in reaction.reactants)
    ]
    assert len(pairs) > 10
    assert all(before == after == ["S"] for before, after in pairs)


def test_retrosynthesis_lists_reactants_that_some_template_turns_into_the_product(corpus: list[Row]) -> None:
    for row in of(corpus, "retrosynthesis"):
        found: set[str] = set()
        parts = row.target.split(".")
        for template in synthetic_reactions.TEMPLATES:
            if len(template.draws) == len(parts):
                for order in (parts, parts[::-1]):
                    found.update(synthetic_reactions.products(template, tuple(order)))
        assert row.source in found


def test_retrosynthesis_has_one_answer_for_nearly_every_product(
    reactions: list[synthetic_reactions.Reaction],
) -> None:
    answers: dict[str, set[str]] = {}
    for reaction in reactions:
        answers.setdefault(reaction.product, set()).add(reaction.side(with_reagents=False))
    assert sum(len(sides) > 1 for sides in answers.values()) < 0.02 * len(answers)


def test_forward_has_reagents_about_half_of_the_time(corpus: list[Row]) -> None:
    reagents = {
        part for template in synthetic_reactions.TEMPLATES for text in template.reagents for part in text.split(".")
    }
    reagents = {synthetic_molecules.canonical(part) for part in reagents}
    having = [bool(reagents & set(row.source.split("."))) for row in of(corpus, "forward")]
    assert 0.4 < sum(having) / len(having) < 0.6
    assert not any(reagents & set(row.target.split(".")) for row in of(corpus, "retrosynthesis"))
