"""Classes of reactions from a table, and the training set from a file."""

import bz2
import gzip
import lzma

import pytest

from bigchem.base.errors import UserError
from bigchem.evaluate.reaction_classes import classes_of
from bigchem.evaluate.score import score_file
from bigchem.evaluate.training_set import read_training_set
from bigchem.tasks import shipped

TABLE = "class,reactants>reagents>production\n1,CCO.CN>>CCNC\n2,CCl.CN>O>CNC\n3,CBr.CN>>CNC\n4,[NH3]->[Cu].CI>>CN\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text(TABLE)
    return path


def test_reactions_are_found_however_they_are_spelled(table, tmp_path):
    packed = tmp_path / "test.csv.gz"
    packed.write_bytes(gzip.compress(TABLE.encode()))
    for file in (table, packed):
        sources, references = ["C(C)NC", "N(C)C", "CNC", "CNC", "C"], ["NC.OCC", "NC.[Cl:1][CH3:2]", "CBr.NC", "N", "C"]
        assert classes_of(file, shipped()["retrosynthesis"], sources, references) == ["1", "2", "3", "", ""]
        assert classes_of(file, shipped()["forward"], references, sources) == ["1", "2", "3", "", ""]
    assert classes_of(table, shipped()["forward"], ["CI.[Cu]<-[NH3]"], ["NC"]) == ["4"]
    # Other reactants: by the product, if it has a single class.
    assert classes_of(table, shipped()["forward"], ["CCO.CN.O"], ["CCNC"]) == ["1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "no column of classes"),
        ("class,b\n1,2\n", "no column of reactions"),
        ("class,reaction\n1,CC\n", r"test\.csv:2: not a reaction: 'CC'"),
        ("class,reaction\n1,C>>CC\n", "none of 1 example"),
        ("class,reaction\n1,a, b,C>>CC\n", r"test\.csv:2: 4 fields, the header has 2"),
        ("class,Class,reaction\n1,2,C>>CC\n", "2 columns are called 'class'"),
    ],
)
def test_other_tables_are_refused(tmp_path, content, message):
    path = tmp_path / "test.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        classes_of(path, shipped()["forward"], ["O"], ["N"])
    with pytest.raises(UserError, match="needs a task between reactants and product, not generation"):
        classes_of(path, shipped()["generation"], ["O"], ["N"])
    with pytest.raises(UserError, match="no such file"):
        classes_of(tmp_path / "absent.csv", shipped()["forward"], ["O"], ["N"])


def test_a_file_is_scored_by_class(table, tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("source,target,prediction\nCCNC,CCO.CN,OCC.CN\nCNC,CBr.CN,C\n")
    scores = score_file(shipped()["retrosynthesis"], path, classes=table)
    assert {s.group: s.value for s in scores if s.metric == "top1"} == {"": 0.5, "class 1": 1.0, "class 3": 0.0}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.smi", "CCO ethanol\nCC\tethane\n\nC(\n"),
        ("a.txt", "CID\tSMILES\tdescription\n1\tCCO\ta\n2\tCC\tb, c\n3\tC(\td\n"),
        ("a.csv", "id,smiles\n1,CCO\n2,CC\n3,C(\n"),
        ("a.csv", 'name,smiles\n"ethanol, or\nspirit",CCO\n"a ""gas""",CC\nwater, cold,O\n'),
        ("a.csv", '\ufeff"Smiles","name"\r\n"CCO","ethanol"\r\n"CC","ethane"\r\n"",""\r\n'),
        ("a.csv", "name;smiles\nethanol;CCO\nethane;CC\nx;y\n"),
    ],
)
@pytest.mark.parametrize("packed", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_training_set_is_the_first_word_of_each_line_or_a_column(tmp_path, capsys, name, content, packed):
    path = tmp_path / name
    path.write_bytes(packed(content.encode()))
    assert read_training_set(path) == ["CCO", "CC"]
    assert "1 of 3 lines without a molecule, left out" in capsys.readouterr().err


def test_a_molecule_beside_a_quoted_comma_is_not_novel(tmp_path):
    (tmp_path / "train.csv").write_text('name,smiles\n"2,4-dinitrophenol",O=[N+]([O-])c1ccc(O)c([N+](=O)[O-])c1\n')
    path = tmp_path / "p.csv"
    path.write_text("source,target,prediction\nan acid,CC,Oc1ccc(cc1[N+](=O)[O-])[N+](=O)[O-]\n")
    scores = score_file(shipped()["generation"], path, training=tmp_path / "train.csv")
    assert next(score.value for score in scores if score.metric == "novelty") == 0.0


def test_what_holds_no_molecules_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    for content in ("", "a caption\n"):
        path.write_text(content)
        with pytest.raises(UserError, match="no molecule among the first"):
            read_training_set(path)
    with pytest.raises(UserError, match="no such file"):
        read_training_set(tmp_path / "absent")
    path.write_text("source,target,prediction\na,CC,CC\n")
    with pytest.raises(UserError, match="--train-set: needs a task that generates molecules, not forward"):
        score_file(shipped()["forward"], path, training=path)
