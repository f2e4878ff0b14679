"""Respelled molecules: the same molecule, another text, predicted like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rdkit import Chem

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.chemistry import dotted
from bigchem.chemistry.spellings import SPELLINGS, respell
from bigchem.config import EvaluateConfig
from bigchem.data.storage.shards import Data
from bigchem.evaluate.generation import generate
from bigchem.evaluate.generation.respelled import Respelled
from bigchem.evaluate.run import evaluate
from bigchem.evaluate.spelling_probe import parse_spellings, probe
from bigchem.evaluate.subject import Subject

QUIET = Progress(quiet=True)
ASPIRIN = "O=C(C)Oc1ccccc1C(=O)O"
CONFIG = EvaluateConfig(max_new_tokens=4, max_rows=4, bootstrap=0)


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        ("canonical", "CC(=O)Oc1ccccc1C(=O)O"),
        ("kekule", "CC(=O)OC1=CC=CC=C1C(=O)O"),
        ("explicit-h", "[CH3][C](=[O])[O][c]1[cH][cH][cH][cH][c]1[C](=[O])[OH]"),
    ],
)
def test_spellings_are_those_of_the_published_probe(spelling: str, expected: str) -> None:
    assert respell(ASPIRIN, spelling, 0) == expected


def test_every_spelling_is_of_the_same_molecules(small_data: Path) -> None:
    rows = Data(small_data).split("test", "forward")
    texts = [rows.text(row)[1] for row in range(len(rows))] + ["C[C@H](N)C(=O)[O-]~[Na+].F/C=C/F.*c1cc[nH]c1", ASPIRIN]
    for spelling in SPELLINGS:
        for text in texts:
            new = respell(text, spelling, 3)
            assert new is not None
            assert [len(side.split("~")) for side in new.split(".")] == [
                len(side.split("~")) for side in text.split(".")
            ]
            assert Chem.CanonSmiles(dotted(new)) == Chem.CanonSmiles(dotted(text))


def test_random_spellings_are_those_of_their_seed() -> None:
    made = [respell(ASPIRIN, "random", seed) for seed in (1, 1, 2, 3)]
    assert made[0] == made[1]
    assert len(set(made)) > 1
    twice = respell(f"{ASPIRIN}.{ASPIRIN}", "random", 1)
    assert twice is not None
    assert len(set(twice.split("."))) == 2


@pytest.mark.parametrize("text", ["", "C(", "not SMILES", "C.", "C1.C1"])
def test_what_is_not_read_is_not_respelled(text: str) -> None:
    assert respell(text, "canonical", 0) is None


def test_respelled_rows_are_rows_with_other_sources(small_data: Path) -> None:
    data = Data(small_data)
    rows, given = Respelled(data, "explicit-h", 0, 5).split("test", "captioning"), data.split("test", "captioning")
    assert len(rows) == 5 == rows.changed
    for row in range(5):
        key, source, target = given.text(row)
        assert rows.text(row) == (key, respell(source, "explicit-h", 0), target)
        ids, wanted = rows.tokens(row)
        assert (len(ids), len(wanted)) == tuple(rows.lengths[row])
        assert wanted.tolist() == given.tokens(row)[1].tolist()
    assert rows.lengths[0, 0] > given.lengths[0, 0]
    assert Respelled(data, "random", 0, 0).index.fingerprint != Respelled(data, "random", 1, 0).index.fingerprint


def test_a_probe_scores_each_spelling_beside_the_original_and_goes_on_where_it_was(
    small_data: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"run": "x", "mixture": {"captioning": 1.0}, "seed": 0, "step": 1, "tokens": 2}
    subject = Subject(model_dir, Data(small_data), ("captioning", "generation"), tmp_path, 512, about)
    with pytest.raises(UserError, match="no results of the original spelling"):
        probe(subject, CONFIG, ("canonical",), progress=QUIET)
    evaluate(subject, CONFIG, progress=QUIET)
    shown = probe(subject, CONFIG, ("random", "kekule"), progress=QUIET).read_text()
    assert "| task | metric | n | given | random | kekule |" in shown
    assert "captioning text2mol" in shown.split("n/a (reasons in table.md): ")[1]
    assert "generation" not in shown  # its input is not a molecule
    table = json.loads((tmp_path / "probe.json").read_text())
    losses = {m["spelling"]: m["value"] for m in table["metrics"] if m["metric"] == "loss"}
    assert losses.keys() == {"given", "random", "kekule"}
    assert len(set(losses.values())) == 3
    assert table["sources"]["kekule"]["captioning"].keys() == {"rows", "changed", "unread"}
    assert f"{losses['kekule']:.4f}" in shown

    def no_more(*_: object) -> None:
        raise AssertionError("predicted again")

    monkeypatch.setattr(generate, "beam_search", no_more)
    assert probe(subject, CONFIG, ("random", "kekule"), progress=QUIET).read_text() == shown
    assert json.loads((tmp_path / "probe.json").read_text()) == table


def test_the_list_of_spellings_is_checked() -> None:
    assert parse_spellings("kekule, random,kekule") == ("kekule", "random")
    with pytest.raises(UserError, match="did you mean 'kekule'"):
        parse_spellings("kekul")
    with pytest.raises(UserError, match="no spelling"):
        parse_spellings(",")


def test_a_task_without_a_molecule_for_input_is_refused(small_data: Path, model_dir: Path, tmp_path: Path) -> None:
    subject = Subject(model_dir, Data(small_data), ("generation",), tmp_path, 512, {})
    with pytest.raises(UserError, match="no task has molecules as input"):
        probe(subject, CONFIG, ("random",), progress=QUIET)
