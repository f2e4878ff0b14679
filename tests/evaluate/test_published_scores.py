"""MolT5's published predictions score as MolT5's own scripts score them."""

import json
import os
import tarfile
from pathlib import Path

import pytest

from bigchem.evaluate.score import score_file

DATA = Path(os.environ.get("BIGCHEM_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
PUBLISHED = DATA.parent / "published"
VOCABULARIES = DATA.parent / "vocab"

pytestmark = [
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
    ("task", "file"), [("captioning", "molt5-small-smiles2caption"), ("generation", "molt5-small-caption2smiles")]
)
def test_published_predictions_have_their_published_scores(task, file, vocabularies):
    published = json.loads((PUBLISHED / "scores.json").read_text())[file]
    published.pop("fcd", None)  # packages disagree by a factor of 20
    if "lev" in published:
        published["levenshtein"] = published.pop("lev")
    scores = {score.metric: score for score in score_file(task, PUBLISHED / f"{file}.txt.gz", bootstrap=100)}
    assert {name: scores[name].value for name in published} == pytest.approx(published, abs=1e-4, rel=0)
    assert all(scores[name].low < scores[name].value < scores[name].high for name in published)
