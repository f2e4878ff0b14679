"""Readers of fixed layouts that have no test module of their own."""

from __future__ import annotations

import json

import pytest
from reading import config, published, read, write

from bigchem.base.errors import UserError
from bigchem.data.sources import reader
from bigchem.data.sources.base import Row
from bigchem.tasks import TaskConfig, merged

CHEBI20 = "CID\tSMILES\tdescription"


def test_unknown_format_is_told_with_the_nearest_one():
    with pytest.raises(UserError, match="did you mean 'chebi20'"):
        reader("chebi_20", "recipe.toml: sources.0")


def test_key_is_pinned_and_is_of_the_texts_alone():
    assert Row("forward", "CO.Cl", "COC").key == "b03bf4e75e06b43c"
    assert Row("forward", "CO.Cl", "COC", "COC", repairs=("backslashes",)).key == "b03bf4e75e06b43c"
    assert Row("forward", "CO.Cl", "COC", repairs=("backslashes",)) == Row("forward", "CO.Cl", "COC")


def test_chebi20_gives_both_directions_and_repairs_doubled_backslashes(tmp_path):
    file = write(tmp_path, "c.txt", CHEBI20, 'C1\tF/C=C\\\\F\tThe molecule is "trans\tor not", \\\\ kept.')
    rows, reasons = read(config("chebi20", file))
    text = 'The molecule is "trans\tor not", \\\\ kept.'
    assert rows == [Row("captioning", "F/C=C\\F", text, "F/C=C\\F"), Row("generation", text, "F/C=C\\F", "F/C=C\\F")]
    assert reasons == []
    assert [row.repairs for row in rows] == [("backslashes",)] * 2
    only, _ = read(config("chebi20", file, tasks=["generation"]))
    assert only == rows[1:]


def test_chebi20_molecule_is_one_compound_whatever_fragments_it_has(tmp_path):
    rows, _ = read(config("chebi20", write(tmp_path, "c.txt", CHEBI20, "1\t[Na+].[Cl-]\tSalt.")))
    assert [(row.source, row.molecule, row.repairs) for row in rows] == [
        ("[Na+].[Cl-]", "[Na+]~[Cl-]", ()),
        ("Salt.", "[Na+]~[Cl-]", ()),
    ]


def test_chebi20_refuses_unreadable_smiles_short_lines_and_empty_texts(tmp_path):
    file = write(tmp_path, "c.txt", CHEBI20, "1\tC(C\ta", "2\tCC", "", "3\tCC\t ", "4\tC\tmethane", "5\tCCO ethanol\ta")
    rows, reasons = read(config("chebi20", file))
    assert len(rows) == 2
    expected = ["RDKit cannot read 'C(C'", "wrong number of columns", "empty text", "a space in SMILES: 'CCO ethanol'"]
    assert reasons == expected


def test_atom_maps_are_removed_for_every_task_and_counted(tmp_path):
    pairs = {
        "captioning": ("[CH3:1][CH2:2][OH:3]", "ethanol"),
        "generation": ("ethanol", "[CH3:1][CH2:2][OH:3]"),
        "forward": ("[CH3:1][OH:2].[CH3:3][CH2:4][Br:5]", "[CH3:1][O:2][CH2:4][CH3:3]"),
    }
    lines = [json.dumps({"task": task, "source": left, "target": right}) for task, (left, right) in pairs.items()]
    rows, reasons = read(config("jsonl", write(tmp_path, "m.jsonl", *lines)))
    assert not reasons
    assert rows == [
        Row("captioning", "CCO", "ethanol", "CCO"),
        Row("generation", "ethanol", "CCO", "CCO"),
        Row("forward", "CO.CCBr", "CCOC", "CCOC"),
    ]
    assert [row.repairs for row in rows] == [("maps",)] * 3


def test_captions_and_targets_that_stand_for_nothing_are_rejected_with_the_reason(tmp_path):
    missing = ["None", "null", "N/A", "NaN", "-"]
    columns = {"smiles": "SMILES", "text": "text"}
    file = write(tmp_path, "c.csv", "SMILES,text", *(f"CCO,{text}" for text in missing), "CCO,none of it")
    rows, reasons = read(config("csv", file, columns=columns))
    assert [row.target for row in rows] == ["none of it", "CCO"]
    assert reasons == [f"a missing text: '{text}'" for text in missing]


def test_a_source_can_say_that_its_texts_are_selfies(tmp_path):
    pytest.importorskip("selfies")
    file = write(tmp_path, "s.csv", "SMILES,text", "[C][C][O],ethanol", "[C],methane", "[O][O],peroxide")
    columns = {"smiles": "SMILES", "text": "text"}
    for selfies, last, noticed in ((True, ["C", "OO"], "selfies"), (False, ["[C]", "[O][O]"], "doubtful")):
        rows, _ = read(config("csv", file, columns=columns, tasks=["captioning"], selfies=selfies))
        assert [row.source for row in rows] == ["CCO", *last]
        assert [row.repairs for row in rows] == [("selfies",), (noticed,), (noticed,)]
    lines = write(tmp_path, "s.smi", "[C]")
    assert read(config("smiles_lines", lines, selfies=True))[0] == [Row("smiles_spans", "C", "", "C")]


@pytest.mark.parametrize(
    ("name", "header", "hint"),
    [
        ("csv", "source;target", "separated by ';': save it with commas"),
        ("csv", "source\ttarget", "separated by tabs: format = 'tsv'"),
        ("tsv", "source,target", "separated by commas: format = 'csv'"),
        ("csv", "SOURCE,TARGET", "write 'SOURCE' in `columns`"),
        ("csv", "question,answer", "is `format` right? `columns`, `where`,"),
    ],
)
def test_a_header_without_the_columns_comes_with_what_to_do(tmp_path, name, header, hint):
    file = write(tmp_path, "a.csv", header, "CCO,ethanol")
    with pytest.raises(UserError) as refused:
        read(config(name, file, tasks=["captioning"]))
    assert hint in str(refused.value.hint)


def test_a_label_or_a_group_that_no_json_object_has_is_refused_as_in_a_table(tmp_path):
    tasks = merged({"x": TaskConfig(source="chemistry", target="labels", labels=("toxic", "approved"))})
    entries = [{"s": "CCO", "toxic": 1, "approved": None}, {"s": "CC", "toxic": None, "approved": 0}, {"s": "C"}]
    file = write(tmp_path, "a.jsonl", *map(json.dumps, entries))
    given = config("jsonl", file, columns={"source": "s"}, tasks=["x"])
    rows, reasons = read(given, tasks=tasks)
    assert [row.target for row in rows] == ["toxic=1", "approved=0"]
    assert reasons == ["a missing text: no label has a value"]
    wrong = merged({"x": TaskConfig(source="chemistry", target="labels", labels=("toxic", "aproved"))})
    with pytest.raises(UserError, match="no key 'aproved' in its first 3 records\nnext: did you mean 'approved'"):
        read(given, tasks=wrong)
    with pytest.raises(UserError, match="no key 'scafold' in its first 3 records\nnext: known: approved, s, toxic"):
        read(given.model_copy(update={"split": None, "test_fraction": 0.1, "split_by": "scafold"}), tasks=tasks)


def test_parallel_reactions_may_have_reagents_apart(tmp_path):
    source, target = tmp_path / "src.txt", tmp_path / "tgt.txt"
    source.write_text("C C O . C C ( = O ) O > C l\nCCO.CC(=O)O>Cl\nC C O . C C ( = O ) O >\nN->[Pd]Cl.CO\n")
    target.write_text("C C O C ( C ) = O\n" * 4)
    rows, reasons = read(config("parallel_text", source, target_path=str(target), tasks=["forward"]))
    assert not reasons
    assert [sorted(row.source.split(".")) for row in rows[:3]] == [["CC(=O)O", "CCO", "Cl"]] * 2 + [["CC(=O)O", "CCO"]]
    assert ["reagents" in row.repairs for row in rows] == [True, True, True, False]


def test_an_angle_bracket_beside_reactants_stays_what_its_own_side_says(tmp_path):
    source = write(tmp_path, "src.txt", "CCO.CC(=O)O>Cl", "CCO.CC(=O)O")
    target = write(tmp_path, "tgt.txt", ">95", "95")
    about = TaskConfig(source="reactants", target="number")
    given = config("parallel_text", source, target_path=str(target), tasks=["x"])
    rows, reasons = read(given, tasks=merged({"x": about}))
    assert [(row.source, row.target) for row in rows] == [("CCO.CC(=O)O", "95")]
    assert reasons == ["not a number: '>95'"]
    about = about.model_copy(update={"target": "text"})
    target = write(tmp_path, "tgt.txt", "kept at >100 °C", "kept")
    rows, _ = read(given, tasks=merged({"x": about}))
    assert [row.target for row in rows] == ["kept at >100 °C", "kept"]


def test_parallel_text_without_a_task_is_refused_if_the_recipe_redefines_the_default_one(tmp_path):
    lines = write(tmp_path, "src.txt", "Stir.")
    tasks = merged({"actions": TaskConfig(source="text", target="text", family="text", prompt="P: ")})
    with pytest.raises(UserError, match="format 'parallel_text' has no task\nnext: add tasks"):
        read(config("parallel_text", lines, target_path=str(lines)), tasks=tasks)


def test_parallel_text_needs_equally_long_files(tmp_path):
    source = write(tmp_path, "src.txt", "Stir.", "", "Filter.")
    target = write(tmp_path, "tgt.txt", "STIR.", "WAIT.", "FILTER.")
    rows, reasons = read(config("parallel_text", source, target_path=str(target)))
    assert rows == [Row("actions", "Stir.", "STIR."), Row("actions", "Filter.", "FILTER.")]
    assert reasons == ["empty text"]
    target = write(tmp_path, "short.txt", "STIR.")
    with pytest.raises(UserError, match=r"src.txt: 3 lines, but 1 in .*short.txt"):
        read(config("parallel_text", source, target_path=str(target)))
    with pytest.raises(UserError, match="target_path"):
        read(config("parallel_text", source))


@pytest.mark.thorough
@pytest.mark.data
def test_every_chebi20_row_is_read_and_no_backslash_stays_doubled():
    found = {split: read(config("chebi20", published("chebi20", f"{split}.txt"))) for split in ("validation", "test")}
    assert {split: (len(rows), reasons) for split, (rows, reasons) in found.items()} == {
        "validation": (6602, []),
        "test": (6600, []),
    }
    smiles = [r.source for rows, _ in found.values() for r in rows if r.task == "captioning"]
    assert sum("\\" in s for s in smiles) == 986
    assert not any("\\\\" in s for s in smiles)


@pytest.mark.data
def test_published_procedures_are_read():
    sentences = config(
        "parallel_text",
        published("lowe_actions", "src-test.txt.gz"),
        target_path=published("lowe_actions", "tgt-test.txt.gz"),
    )
    paragraphs = config("jsonl", published("lowe_actions", "paragraph-test.jsonl.gz"), tasks=["actions"])
    for source, count in ((sentences, 1500), (paragraphs, 1000)):
        rows, reasons = read(source)
        assert (len(rows), reasons) == (count, [])
        assert {row.task for row in rows} == {"actions"}
