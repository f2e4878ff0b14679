"""Predictions as scored: repaired by one rule, and every kind of repair is a row of the result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bigchem.base.errors import UserError
from bigchem.evaluate.prediction_files.tables import ReadAs
from bigchem.evaluate.protocol.score_task import Score
from bigchem.evaluate.score import score_file
from bigchem.tasks import shipped


def scored(tmp_path: Path, task: str, *pairs: tuple[str, list[str]], strip: str | None = None) -> list[Score]:
    file = tmp_path / "p.jsonl"
    lines = [{"source": "x", "target": target, "predictions": ranked} for target, ranked in pairs]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return score_file(shipped()[task], file, ReadAs.of((), None, None, None, strip))


def value(scores: list[Score], metric: str) -> float | None:
    return next(score.value for score in scores if score.metric == metric)


def counts(scores: list[Score]) -> dict[str, float | None]:
    return {score.note: score.value for score in scores if score.metric == "reading"}


def test_token_spaced_files_are_joined_on_both_sides(tmp_path: Path) -> None:
    found = scored(tmp_path, "forward", ("C C O", ["O C C", "C"]), ("C C N", ["C C C C", "C N"]))
    assert (value(found, "top1"), value(found, "top2")) == (0.5, 0.5)
    assert counts(found) == {
        "references: token-spaced SMILES joined": 2,
        "predictions: token-spaced SMILES joined": 3,
    }


def test_answers_that_may_be_selfies_are_selfies_where_most_are(tmp_path: Path) -> None:
    pytest.importorskip("selfies")
    long = ("[C][C][O]", ["[C][C][O]"])
    pairs = [long, long, ("[C]", ["C"]), ("[O][O]", ["OO"])]
    found = scored(tmp_path, "generation", *pairs)
    assert value(found, "exact") == 1.0
    noticed = counts(found)
    assert noticed.pop("references: SELFIES decoded") == 4
    assert noticed == {"predictions: SELFIES decoded": 2}


def test_a_doubtful_answer_among_smiles_stays_and_is_counted(tmp_path: Path) -> None:
    pytest.importorskip("selfies")
    found = scored(tmp_path, "generation", ("CCO", ["[C][C][O]"]), ("CCN", ["CCN"]), ("CC", ["CC"]), ("C", ["[C]"]))
    assert value(found, "exact") == 0.75
    doubt = "predictions: brackets such as [C], SMILES of a radical or SELFIES: read as SMILES"
    assert counts(found) == {"predictions: SELFIES decoded": 1, doubt: 1}


def test_first_word_of_a_sentence_is_no_hit_unless_prose_is_stripped(tmp_path: Path) -> None:
    pair = ("CCO", ["CCO is the answer."])
    assert value(scored(tmp_path, "generation", pair), "validity") == 0
    stripped = scored(tmp_path, "generation", pair, strip="all")
    assert value(stripped, "exact") == 1
    assert counts(stripped) == {"predictions: prose around one SMILES stripped": 1}
    assert value(scored(tmp_path, "generation", ("CC", ["CC</s>"])), "exact") == 1
    assert value(scored(tmp_path, "generation", ("CC", ["CC</s>"]), strip="none"), "exact") == 0
    with pytest.raises(UserError, match="unknown value 'tag'"):
        scored(tmp_path, "generation", pair, strip="tag")


def test_two_drawings_of_a_complex_are_a_hit_and_pairs_without_inchi_are_said(tmp_path: Path) -> None:
    arrows, charges = "[NH3]->[Pt](<-[NH3])(Cl)Cl", "[NH3+][Pt-2]([NH3+])(Cl)Cl"
    assert value(scored(tmp_path, "forward", (arrows, [charges])), "top1") == 1
    found = scored(tmp_path, "generation", (arrows, [charges]), ("*CC*", ["C(*)C*"]))
    exact = next(score for score in found if score.metric == "exact")
    assert (exact.value, exact.note) == (1.0, "1 pair has no InChI, compared by canonical SMILES")


def test_a_chain_that_kills_rdkit_is_an_invalid_prediction(tmp_path: Path) -> None:
    found = scored(tmp_path, "forward", ("CCO", ["CCO"]), ("CCO", ["C" * 20_000]))
    assert (value(found, "top1"), value(found, "validity")) == (0.5, 0.5)


def test_one_repair_is_reported_in_the_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored(tmp_path, "forward", ("C C O", ["O C C", "C C"]))
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "1 reference: token-spaced SMILES joined",
        "2 predictions: token-spaced SMILES joined",
    ]
