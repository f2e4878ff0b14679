"""The synthetic corpus: a pure function of (seed, line), chemically true, and varied."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from rdkit import Chem
from rdkit.Chem import Fragments, rdMolDescriptors

from bigchem.data.sources import synthetic_captions, synthetic_molecules, synthetic_reactions
from bigchem.data.sources.base import Record, Row, SourceConfig
from bigchem.data.sources.synthetic import Synthetic
from bigchem.data.sources.synthetic_procedures import LONGEST, SENTENCES, procedure

ROWS = 3000


def config(**fields: object) -> SourceConfig:
    return SourceConfig.model_validate({"format": "synthetic", "split": "train", "rows": ROWS, **fields})


def read(source: SourceConfig) -> list[Row]:
    reader = Synthetic()
    return [row for record in reader.records(source) for row in reader.rows(record, source)]


@pytest.fixture(scope="module")
def corpus() -> list[Row]:
    return read(config(seed=7))


@pytest.fixture(scope="module")
def reactions() -> list[synthetic_reactions.Reaction]:
    return [synthetic_reactions.reaction(Random(f"reaction {number}")) for number in range(1500)]


@pytest.fixture(scope="module")
def captions() -> list[tuple[Chem.Mol, str]]:
    drawn = [synthetic_molecules.molecule(Random(f"molecule {number}")) for number in range(1500)]
    return [(Chem.MolFromSmiles(smiles), synthetic_captions.caption(smiles)) for smiles in drawn]


def of(corpus: list[Row], *tasks: str) -> list[Row]:
    return [row for row in corpus if row.task in tasks]


# A function of (seed, line)


def test_a_row_depends_neither_on_order_nor_on_how_many_are_asked(corpus: list[Row]) -> None:
    assert read(config(seed=7, rows=200)) == corpus[:200]
    backwards = [
        Synthetic().rows(Record("synthetic", line, ()), config(seed=7, rows=1))[0] for line in range(200, 0, -1)
    ]
    assert backwards[::-1] == corpus[:200]


def test_another_process_with_another_hash_seed_draws_the_same_rows(corpus: list[Row]) -> None:
    program = (
        "from bigchem.data.sources.base import SourceConfig\n"
        "from bigchem.data.sources.synthetic import Synthetic\n"
        "source = SourceConfig(format='synthetic', split='train', rows=100, seed=7)\n"
        "print(*(Synthetic().rows(r, source)[0].key for r in Synthetic().records(source)))\n"
    )
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    keys = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True).stdout
    assert keys.split() == [row.key for row in corpus[:100]]


def test_rows_go_round_the_tasks_in_turn(corpus: list[Row]) -> None:
    assert Counter(row.task for row in corpus) == dict.fromkeys(Synthetic.tasks, ROWS // 5)
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
        synthetic_captions.caption("C(C)(C)(C)(C)C")


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


def atoms(smiles: str) -> Counter[str]:
    return Counter(atom.GetSymbol() for atom in Chem.AddHs(Chem.MolFromSmiles(smiles)).GetAtoms())


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


# Captions

NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}


def stated(text: str, pattern: str) -> dict[str, int]:
    """The counts in one sentence of a caption: `a nitro and two ether groups` -> {"nitro": 1, "ether": 2}."""
    found = re.search(pattern, text)
    if found is None:
        return {}
    items = re.split(r", (?=[a-z])| and ", found.group(1))
    return {name: NUMBERS[number] for number, name in (item.split(" ", 1) for item in items)}


def groups(text: str) -> Counter[str]:
    """Classes and substituents stated, the class in the first sentence included."""
    counts = Counter(stated(text, r"It contains (.*?) groups?\.") | stated(text, r"It bears (.*?) groups?\."))
    head = re.match(r"The molecule is an? (?:\w+) (.*?)(?: with .*?)?\. ", text)
    assert head, text
    counts[head.group(1)] = counts[head.group(1)] or 1
    return counts


def rings(text: str) -> dict[str, int]:
    return stated(text, r"^[^.]* with (.*?) rings?\. ")


def test_the_formula_stated_is_that_of_the_molecule(captions: list[tuple[Chem.Mol, str]]) -> None:
    for mol, text in captions:
        formula = re.search(r"Its formula is (\w+)\.$", text)
        assert formula, text
        counted = {symbol: int(number or 1) for symbol, number in re.findall(r"([A-Z][a-z]?)(\d*)", formula.group(1))}
        assert counted == atoms(Chem.MolToSmiles(mol))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("nitrile", Fragments.fr_nitrile),
        ("aldehyde", Fragments.fr_aldehyde),
        ("carboxylic acid", Fragments.fr_COO2),
        ("hydroxyarene", Fragments.fr_Ar_OH),
        ("alcohol", Fragments.fr_Al_OH),
        ("urea", Fragments.fr_urea),
        ("nitro", Fragments.fr_nitro),
        ("chloro", lambda mol: sum(atom.GetAtomicNum() == 17 for atom in mol.GetAtoms())),
        ("bromo", lambda mol: sum(atom.GetAtomicNum() == 35 for atom in mol.GetAtoms())),
        ("sulfone", Fragments.fr_sulfone),
        ("ester", Fragments.fr_ester),
        ("ketone", Fragments.fr_ketone),
        ("sulfonamide", Fragments.fr_sulfonamd),
    ],
)
def test_groups_stated_are_those_that_rdkits_own_counters_find(
    captions: list[tuple[Chem.Mol, str]], name: str, count: Callable[[Chem.Mol], int]
) -> None:
    seen = 0
    for mol, text in captions:
        assert groups(text)[name] == count(mol), (Chem.MolToSmiles(mol), text)
        seen += groups(text)[name]
    assert seen > 5


def test_every_fluorine_is_stated(captions: list[tuple[Chem.Mol, str]]) -> None:
    for mol, text in captions:
        fluorines = sum(atom.GetAtomicNum() == 9 for atom in mol.GetAtoms())
        assert groups(text)["fluoro"] + 3 * groups(text)["trifluoromethyl"] == fluorines


def test_every_ring_is_stated(captions: list[tuple[Chem.Mol, str]]) -> None:
    for mol, text in captions:
        fused = sum(count for name, count in rings(text).items() if name in ("naphthalene", "quinoline"))
        assert sum(rings(text).values()) + fused == mol.GetRingInfo().NumRings(), text
        assert ("acyclic" in text) == (mol.GetRingInfo().NumRings() == 0)
        assert (" aromatic " in text or "heteroaromatic" in text) == (rdMolDescriptors.CalcNumAromaticRings(mol) > 0)


@pytest.mark.parametrize(
    ("name", "smarts"),
    [
        ("monosubstituted", "[cD3]1[cD2][cD2][cD2][cD2][cD2]1"),
        ("1,2-disubstituted", "[cD3R1]1[cD3R1][cD2][cD2][cD2][cD2]1"),
        ("1,3-disubstituted", "[cD3]1[cD2][cD3][cD2][cD2][cD2]1"),
        ("1,4-disubstituted", "[cD3]1[cD2][cD2][cD3][cD2][cD2]1"),
        ("1,2,4-trisubstituted", "[cD3R1]1[cD3R1][cD2][cD3][cD2][cD2]1"),
        ("1,3,5-trisubstituted", "[cD3]1[cD2][cD3][cD2][cD3][cD2]1"),
    ],
)
def test_locants_of_benzenes_are_those_of_the_pattern(
    captions: list[tuple[Chem.Mol, str]], name: str, smarts: str
) -> None:
    pattern = Chem.MolFromSmarts(smarts)
    found = [len(mol.GetSubstructMatches(pattern)) for mol, _ in captions]
    assert found == [rings(text).get(f"{name} benzene", 0) for _, text in captions]
    assert sum(found) > 5


def test_double_bonds_have_the_stated_configuration(captions: list[tuple[Chem.Mol, str]]) -> None:
    labels = Counter()
    for mol, text in captions:
        stereo = Counter(bond.GetStereo().name[-1] for bond in mol.GetBonds() if bond.GetStereo().name != "STEREONONE")
        assert stated(text, r"It has (.*?) double bonds?\.") == stereo
        labels.update(stereo)
    assert min(labels["E"], labels["Z"]) > 10


@pytest.mark.parametrize(
    ("smiles", "text"),
    [
        (
            "COC(=O)c1ccc(Cl)cc1",
            "The molecule is an aromatic ester with a 1,4-disubstituted benzene ring. It bears a chloro group. "
            "Its formula is C8H7ClO2.",
        ),
        (
            "CC(=O)Nc1cc(F)cc(F)c1",
            "The molecule is an aromatic amide with a 1,3,5-trisubstituted benzene ring. It bears two fluoro groups. "
            "Its formula is C8H7F2NO.",
        ),
        ("CCO", "The molecule is an acyclic alcohol. Its formula is C2H6O."),
        (
            "O=C(O)/C=C/c1ccncc1",
            "The molecule is a heteroaromatic carboxylic acid with a pyridine ring. It has an E double bond. "
            "Its formula is C8H7NO2.",
        ),
    ],
)
def test_captions_read_as_written_down(smiles: str, text: str) -> None:
    assert synthetic_captions.caption(smiles) == text


def test_captions_are_the_inverse_task_of_generation(corpus: list[Row]) -> None:
    for row in of(corpus, "captioning", "generation"):
        text = row.target if row.task == "captioning" else row.source
        assert text == synthetic_captions.caption(row.molecule or "")


# Procedures

AMOUNT = r" \((?:\d+(?:\.\d)? m?g, \d+(?:\.\d)? mmol|\d+ mL|\d+%|\d+(?:\.\d)? m?g, \d+(?:\.\d)? mmol, \d+%)\)"
NAME = r"[A-Za-z0-9(][A-Za-z0-9,()\- ]*?"
THING = rf"{NAME}(?:{AMOUNT})?"
PLACE = r"(?:-?\d+ °C|room temperature)"
TIME = r"(?:overnight|\d+ (?:minutes|hours?))"
ACTION = re.compile(
    "|".join(
        (
            rf"ADD {THING}(?: dropwise)?(?: at {PLACE})?(?: over {TIME})?(?: under (?:nitrogen|argon))?",
            rf"MAKESOLUTION with {THING} and {THING}",
            rf"STIR for {TIME} at {PLACE}|(?:WAIT|REFLUX|SONICATE) for {TIME}|MICROWAVE for {TIME} at {PLACE}",
            rf"SETTEMPERATURE {PLACE}|DEGAS with (?:nitrogen|argon)|PH with {NAME} to pH \d+",
            rf"QUENCH with {THING}|EXTRACT with {THING} \d x|WASH with {THING}|PARTITION with {THING} and {THING}",
            r"COLLECTLAYER (?:organic|aqueous)|PHASESEPARATION|CONCENTRATE|PURIFY|FILTER keep (?:filtrate|precipitate)",
            rf"DRYSOLUTION over \w+(?: \w+)?|DRYSOLID under vacuum|RECRYSTALLIZE from {NAME}|TRITURATE with {THING}",
            rf"YIELD {THING}",
        )
    )
)


def test_action_strings_parse_and_every_kind_occurs(corpus: list[Row]) -> None:
    kinds = Counter()
    for row in of(corpus, "actions"):
        assert row.target.endswith(".")
        for action in row.target[:-1].split("; "):
            assert ACTION.fullmatch(action), action
            kinds[action.split()[0]] += 1
    written = {word for phase in SENTENCES for _, actions in phase for word in re.findall(r"\b[A-Z]{3,}\b", actions)}
    assert set(kinds) == (written | {"PH"}) - {"SLN"}


def test_every_quantity_and_temperature_of_the_actions_is_in_the_paragraph(corpus: list[Row]) -> None:
    for row in of(corpus, "actions"):
        quantities = re.findall(r"[\d.]+ (?:mL|mg|g|mmol|hours?|minutes)\b|-?\d+ °C|\d+%", row.target)
        assert all(quantity in row.source for quantity in quantities)
        assert row.source.count(" mL") == row.target.count(" mL")


def test_paragraphs_have_one_to_five_sentences_within_the_limit() -> None:
    drawn = [procedure(Random(f"procedure {number}")) for number in range(1000)]
    sentences = Counter(len(re.findall(r"\.(?= [A-Z0-9(]|$)", text)) for text, _ in drawn)
    assert set(sentences) == {1, 2, 3, 4, 5}
    assert max(len(part) for pair in drawn for part in pair) <= LONGEST
    assert not any("{" in part or "}" in part for pair in drawn for part in pair)
