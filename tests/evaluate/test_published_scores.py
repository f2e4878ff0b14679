"""MolT5's published predictions score as MolT5's own scripts score them."""

import gzip
import json
import sys
import tarfile

import pytest
from rdkit import Chem
from real_files import REAL_DATA

from bigchem.evaluate.metrics.molecules import frechet_distance
from bigchem.evaluate.protocol.definitions import HIGHER_IS_BETTER
from bigchem.evaluate.published import published as published_rows
from bigchem.evaluate.score import score_file
from bigchem.tasks import shipped

PUBLISHED = REAL_DATA.parent / "published"
VOCABULARIES = REAL_DATA.parent / "vocab"

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.data,
    pytest.mark.skipif(not PUBLISHED.is_dir() or not VOCABULARIES.is_dir(), reason="no published predictions"),
]


@pytest.fixture
def vocabularies(tmp_path, monkeypatch):
    with tarfile.open(VOCABULARIES / "nltk_wordnet.tgz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    monkeypatch.setenv("BIGCHEM_SCIBERT", str(VOCABULARIES / "scibert"))


@pytest.mark.parametrize(
    ("task", "file", "fcd"),
    [
        ("captioning", "molt5-small-smiles2caption", False),
        ("generation", "molt5-small-caption2smiles", False),
        pytest.param("generation", "molt5-small-caption2smiles", True, marks=pytest.mark.thorough),
    ],
)
def test_published_predictions_have_their_published_scores(task, file, fcd, vocabularies, monkeypatch):
    """fcd: with the Fréchet distance, most of whose time is ChemNet's."""
    if not fcd:
        monkeypatch.setitem(sys.modules, "fcd", None)  # as where it is not installed
    published = json.loads((PUBLISHED / "scores.json").read_text())[file]
    published.pop("fcd", None)  # depends on the padding: see docs/decisions.md
    if "lev" in published:
        published["levenshtein"] = published.pop("lev")
    scores = {score.metric: score for score in score_file(shipped()[task], PUBLISHED / f"{file}.txt.gz", bootstrap=100)}
    # One of the 3,300 molecules contains a space: RDKit, and so MolT5's scripts, reads only the text before it.
    close = 4e-4 if task == "generation" else 1e-4
    assert {name: scores[name].value for name in published} == pytest.approx(published, abs=close, rel=0)
    assert all(scores[name].low < scores[name].value < scores[name].high for name in published)
    rescored = {row.model: row.values for row in published_rows()[task] if row.origin == "rescored"}
    assert {name: scores[name].value for name in published} == pytest.approx(rescored["MolT5-small"], abs=close, rel=0)
    for metric in rescored["MolT5-small"].keys() - (set() if fcd else {"fcd"}):
        ordered = [scores[metric].value, rescored["MolT5-large"][metric]]
        assert ordered == sorted(ordered, reverse=not HIGHER_IS_BETTER[metric])


@pytest.mark.slow
def test_the_frechet_distance_of_published_predictions_is_that_of_one_padding():
    """MolT5's script gives 8.4565: it pads references to 1,123, predictions to 543."""
    fcd = pytest.importorskip("fcd")
    with gzip.open(PUBLISHED / "molt5-small-caption2smiles.txt.gz", "rt", encoding="utf-8", newline="\n") as file:
        rows = [line.rstrip("\n").split("\t") for line in file][1:]
    references, predictions = [row[1] for row in rows], [row[2] for row in rows]
    # RDKit reads one prediction, "...SC SCC2...", up to its blank; bigchem refuses it (validity 2,390 against 2,391).
    parsed = [[m for m in map(Chem.MolFromSmiles, side) if m is not None] for side in (references, predictions)]
    whole = [[Chem.MolToSmiles(molecule) for molecule in side] for side in parsed]
    assert fcd.get_fcd(*whole) == pytest.approx(8.4565, abs=1e-3)
    assert frechet_distance(references, predictions) == pytest.approx(1.3624, abs=1e-3)
