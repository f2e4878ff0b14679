"""Reading reactions in each of their published layouts."""

from __future__ import annotations

import pytest
from reading import config, published, read, write

from bigchem.chemistry import NotationError, canonical, split_reaction, without_maps
from bigchem.data.sources.base import Row


@pytest.mark.parametrize(
    ("reaction", "precursors", "product"),
    [
        ("OCC.[CH3:1][OH:2]>>[CH3:1][O:2]CC", "CCO.CO", "CCOC"),
        ("CO.CO>O>COC", "CO.CO.O", "COC"),
        ("[Na+].CBr.[OH-]>CN>CO |f:0.2|", "CBr.CN.[Na+]~[OH-]", "CO"),
        ("CBr>[Br-].[Cu+2].[Br-]>CO |^1:4,f:1.2.3|", "CBr.[Br-]~[Br-]~[Cu+2]", "CO"),
        ("CC(=O)OC>>CC(=O)[O-].[Na+] |f:1.2|", "COC(C)=O", "CC(=O)[O-]~[Na+]"),
        ("CN.Cl>>Cl.CNC", "CN.Cl", "CNC"),
        ("CN>>Cl.CNC", "CN", "CNC"),
    ],
)
def test_reaction_becomes_sorted_canonical_compounds_and_one_product(reaction, precursors, product):
    assert split_reaction(reaction) == (precursors, product)


@pytest.mark.parametrize(
    ("reaction", "reason"),
    [
        ("CO", "two '>'"),
        ("CO>>", "0 products"),
        ("CC>>CN.CO", "2 products"),
        ("CC.CN>>CC.CN", "0 products"),
        ("CN>>CN", "nothing reacts"),
        ("CBr>OC>CO", "nothing reacts"),
        (">>CO", "no reactants"),
        ("CC..C>>CO", "cannot read ''"),
        ("c1cc>>CO", "cannot read 'c1cc'"),
        ("CC.C>>CO |f:1.2|", "across '>'"),
        ("CC.C>>CO |f:0.9|", "across '>'"),
        ("CC.C>>CO |f:7.9|", "across '>'"),
        ("CC.C.C>>CO |f:0.1,1.2|", "twice"),
    ],
)
def test_reaction_that_is_no_row_says_why(reaction, reason):
    with pytest.raises(NotationError, match=reason):
        split_reaction(reaction)


def test_reagents_are_left_out_by_section_or_by_atom_maps():
    assert split_reaction("CBr>O>CO", drop_reagents=True)[0] == "CBr"
    mapped = "[CH3:1][Br:2].[OH2:3].[CH3:7][CH3:8]>>[CH3:1][OH:3]"
    assert split_reaction(mapped, drop_reagents=True, own_section=False) == ("CBr.O", "CO")
    with pytest.raises(NotationError, match="no atom maps"):
        split_reaction("[CH3:1][Br:2]>>CO", drop_reagents=True, own_section=False)
    with pytest.raises(NotationError, match="no reactants"):
        split_reaction("[CH3:1][Br:2]>>[OH2:9]", drop_reagents=True, own_section=False)


def test_reaction_formats_find_their_reaction(tmp_path):
    files = {
        "rsmi": write(tmp_path, "a.rsmi", "ReactionSmiles\tYear", "[Na+].[OH-].CBr>>CO |f:0.1|\t1976"),
        "mapped_reactions": write(tmp_path, "b.txt", "[Na+].[OH-].CBr>>CO 1-2;2-3"),
        "reaction_csv": write(tmp_path, "c.csv", "class,reactants>reagents>production\r", "1,[Na+].[OH-].CBr>>CO\r"),
    }
    sources = {name: read(config(name, file))[0][0].source for name, file in files.items()}
    apart = "CBr.[Na+].[OH-]"
    assert sources == {"rsmi": "CBr.[Na+]~[OH-]", "mapped_reactions": apart, "reaction_csv": apart}


def test_reaction_rows_go_both_ways_and_their_molecule_is_the_product(tmp_path):
    file = write(tmp_path, "a.rsmi", "ReactionSmiles", "CC(=O)OC>O>CC(=O)[O-].[Na+] |f:2.3|")
    rows, _ = read(config("rsmi", file))
    salt = "CC(=O)[O-]~[Na+]"
    assert rows == [Row("forward", "COC(C)=O.O", salt, salt), Row("retrosynthesis", salt, "COC(C)=O.O", salt)]


def test_maps_are_dropped_before_parsing_so_that_they_leave_no_stereo():
    assert canonical(without_maps("[CH3:1][C@H:2]([CH3:3])[OH:4]")) == "CC(C)O"


def test_of_several_products_all_are_taken_on_request_without_what_is_left_over(tmp_path):
    line = "CC.CN.Cl>>CO.[Na+].[O-]C.CN.Cl |f:4.5|"
    assert split_reaction(line, all_products=True) == ("CC.CN.Cl", "CO.C[O-]~[Na+]")
    with pytest.raises(NotationError, match="2 products"):
        split_reaction(line)
    with pytest.raises(NotationError, match="0 products"):
        split_reaction("CC.CN>>CC.CN", all_products=True)
    file = write(tmp_path, "a.rsmi", "ReactionSmiles", line)
    (forward, back), _ = read(config("rsmi", file, products="all"))
    assert (forward.target, back.source, forward.molecule) == ("CO.C[O-]~[Na+]",) * 3
    assert read(config("rsmi", file)) == ([], ["2 products"])


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "file", "rows", "rejected"),
    [
        ("rsmi", "uspto_lowe/train.rsmi.gz", 2000, 0),
        ("mapped_reactions", "uspto_mit/valid.txt.gz", 1990, 5),
        ("mapped_reactions", "uspto_15k/valid.txt.gz", 1990, 5),
        ("reaction_csv", "uspto_50k/test.csv", 2000, 0),
    ],
)
def test_first_thousand_published_reactions_are_read(name, file, rows, rejected):
    found, reasons = read(config(name, published(file)), limit=1000)
    assert (len(found), len(reasons)) == (rows, rejected)
    for row in found[::20]:
        chemistry = (row.source, row.target)
        for side in chemistry:
            assert ":" not in side
            assert side == ".".join(sorted("~".join(sorted(map(canonical, c.split("~")))) for c in side.split(".")))


@pytest.mark.data
def test_papers_own_sample_is_already_in_our_form():
    found = [
        row
        for split in ("train", "valid", "test")
        for row in read(config("jsonl", published("text_chem_t5_sample", f"{split}.jsonl")))[0]
    ]
    assert len(found) == 30
    # RDKit wrote Cl[Sn]Cl when the sample was made, and writes [Cl][Sn][Cl] now.
    reactions = [row for row in found if row.task == "forward" and "[Sn]" not in row.source]
    assert len(reactions) == 5
    for row in reactions:
        assert split_reaction(with_note(row.source, row.target)) == (row.source, row.target)


def with_note(*sides: str) -> str:
    """A reaction SMILES with fragment notes instead of `~`."""
    groups, first = [], 0
    for compound in ".".join(sides).split("."):
        last = first + compound.count("~")
        groups += [".".join(map(str, range(first, last + 1)))] if last > first else []
        first = last + 1
    return ">>".join(sides).replace("~", ".") + f" |f:{','.join(groups)}|"
