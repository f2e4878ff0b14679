"""JSON Lines after kills and power cuts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigchem.base import jsonl
from bigchem.run.log_files import Rows

GOOD = b'{"step": 1, "loss": 2.5}\n{"step": 2, "loss": null}\n'
NEEDS = {"step": int}
DAMAGE = {
    "a torn line": (b'{"step": 3, "lo', "line 3: torn"),
    "a tail of NULs": (b"\0" * 9000, "line 3: NUL bytes"),
    "bytes that are no text": (b'{"step": 3, "a": "\xff\xfe"}\n', "line 3: not UTF-8"),
    "a list": (b"[3]\n", "line 3: not a JSON object"),
    "a missing key": (b'{"loss": 1.0}\n', "line 3: 'step' is missing"),
    "a wrong type": (b'{"step": "3"}\n', "line 3: 'step' has a wrong type"),
    "true": (b'{"step": true}\n', "line 3: 'step' has a wrong type"),
    "half of a page": (b'p": 2}\n', "line 3: not JSON"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_rows_before_and_after_damage_count(tmp_path: Path, name: str) -> None:
    bad, message = DAMAGE[name]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD + bad)
    found = jsonl.read(path, NEEDS)
    assert [row["step"] for row in found.rows] == [1, 2]
    assert message in str(found.damage)
    row, damage = jsonl.last(path, NEEDS)
    assert row["step"] == 2
    assert (damage is None) == (name == "a torn line")
    Rows(path).add({"step": 4})
    assert [row["step"] for row in jsonl.read(path, NEEDS).rows] == [1, 2, 4]


def test_blank_lines_and_a_missing_end_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n  \r\n" + GOOD + b'\n{"step": 3}')
    assert jsonl.read(path, NEEDS) == jsonl.Contents(
        [{"step": 1, "loss": 2.5}, {"step": 2, "loss": None}, {"step": 3}], []
    )
    assert jsonl.last(tmp_path / "absent.jsonl") == ({}, None)
    assert jsonl.read(tmp_path / "absent.jsonl").rows == []


def test_the_last_row_is_found_before_a_long_tail_of_nuls(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD + b"\0" * 1_000_000)
    assert jsonl.last(path, NEEDS) == ({"step": 2, "loss": None}, "damaged at its end: NUL bytes")


def test_a_mended_file_holds_whole_rows_and_the_damaged_one_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    before = b'\0\0{"step": 0}\n' + GOOD + b"nonsense\n" + b'{"step": 3}\n{"ste'
    path.write_bytes(before)
    bad = jsonl.repair(path, lambda row: row["step"] < 3, NEEDS)
    assert [line.number for line in bad] == [4, 6]
    assert path.read_bytes() == b'{"step": 0}\n' + GOOD
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == before
    assert "2 damaged lines skipped: line 4" in capsys.readouterr().out
    assert jsonl.repair(path, lambda row: True, NEEDS) == []
    assert [file.name for file in tmp_path.iterdir() if "damaged-" in file.name] == []


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_BYTES", 64)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"x" * 1000 + b"\n" + GOOD)
    found = jsonl.read(path, NEEDS)
    assert [row["step"] for row in found.rows] == [1, 2]
    assert "longer than 64 bytes" in str(found.damage)
