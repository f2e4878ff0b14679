"""Augmentation: distinct spellings of the same molecules, equal in every process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from reading import config, published, read, write

from bigchem.chemistry import canonical, dotted
from bigchem.data.sources.augment import spellings
from bigchem.data.sources.base import Row
from bigchem.tasks import shipped

SALT = "C[C@H](N)C(=O)[O-]~[Na+]"
REACTION = Row("forward", f"OC(C)c1ccccc1.{SALT}.BrBr", "CC(=O)c1ccccc1", "CC(=O)c1ccccc1", repairs=("backslashes",))


def compounds(side: str) -> list[str]:
    return sorted(canonical(dotted(compound)) for compound in side.split("."))


def test_reaction_keeps_its_compounds_and_its_salts_in_other_words_and_order():
    found = spellings(shipped()["forward"], REACTION, 20)
    sources = [row.source for row in found]
    assert len({*sources, REACTION.source}) == 21
    assert all(compounds(source) == compounds(REACTION.source) for source in sources)
    assert all(sum("~" in compound for compound in source.split(".")) == 1 for source in sources)
    assert len({tuple(map(len, source.split("."))) for source in sources}) > 1
    assert {replace(row, source="") for row in found} == {replace(REACTION, source="")}
    assert not any(row.repairs for row in found)


def test_captioned_salt_is_one_compound_and_keeps_its_way_of_joining():
    for joint in "~.":
        source = "CC(C)C(=O)[O-]~[Na+]".replace("~", joint)
        found = spellings(shipped()["captioning"], Row("captioning", source, "Salt.", SALT), 5)
        assert len(found) == 5
        assert all(row.source.count(joint) == 1 and row.target == "Salt." for row in found)


def test_molecule_with_few_spellings_gives_those_it_has():
    assert [
        row.source for row in spellings(shipped()["retrosynthesis"], Row("retrosynthesis", "CO", "CBr.O", "CO"), 9)
    ] == ["OC"]
    assert spellings(shipped()["smiles_spans"], Row("smiles_spans", "C", "", "C"), 9) == []


def test_text_sources_and_ring_bonds_across_dots_have_none():
    assert spellings(shipped()["generation"], Row("generation", "CCO", "CCO", "CCO"), 3) == []
    assert spellings(shipped()["actions"], Row("actions", "CCO", "STIR."), 3) == []
    assert spellings(shipped()["forward"], Row("forward", "C1CCCC.C1", "C", "C"), 3) == []


def test_fewer_spellings_are_the_first_of_more():
    assert spellings(shipped()["forward"], REACTION, 3) == spellings(shipped()["forward"], REACTION, 9)[:3]


def test_spellings_are_the_same_in_another_process():
    code = (
        "from bigchem.data.sources.augment import spellings, Row; from bigchem.tasks import shipped;"
        f"print(spellings(shipped()['forward'], {REACTION!r}, 3))"
    )
    spelled = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert spelled.strip() == str(spellings(shipped()["forward"], REACTION, 3))


def test_extra_rows_follow_their_row(tmp_path):
    file = write(tmp_path, "a.csv", "s,t", "CCO,Ethanol", "CCCO,Propanol")
    plain, _ = read(config("csv", file, columns={"smiles": "s", "text": "t"}))
    rows, _ = read(config("csv", file, columns={"smiles": "s", "text": "t"}, augment=2))
    tasks = ["captioning", "captioning", "captioning", "generation"]
    assert [row.task for row in rows] == tasks + tasks
    assert [row for row in rows if row in plain] == plain


@pytest.mark.data
def test_spellings_of_published_molecules_mean_the_same():
    rows, _ = read(config("chebi20", published("chebi20", "test.txt"), tasks=["captioning"]), limit=300)
    found = [(row, spelled) for row in rows for spelled in spellings(shipped()[row.task], row, 2)]
    assert len(found) > 590
    assert all(canonical(row.source) == canonical(spelled.source) for row, spelled in found)
