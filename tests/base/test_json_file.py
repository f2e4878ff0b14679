"""Small JSON files: what is read, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bigchem.base import json_file
from bigchem.base.json_file import Count, RecordError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\0" * 4096, "nothing but NUL bytes"),
        (b'{"a": 1', "not JSON: Expecting ',' delimiter"),
        (b'{"a": 1}\0\0\0', "not JSON: Extra data"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8: it looks like UTF-16"),
        ('{"a": 1}'.encode("utf-16-le"), "not UTF-8: it looks like UTF-16"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "a Git LFS pointer, not the file"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"a": 1e999}', "beyond a float's range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "an integer of 5,000 digits"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_strict_json_is_refused_with_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"record\.json: ") as raised:
        json_file.load(tmp_path / "record.json")
    assert message in raised.value.what
    assert len(str(raised.value)) < 300


def test_a_byte_order_mark_and_blanks_are_no_damage(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(b'\xef\xbb\xbf {"a": [1, 2.5, "\\ud83d\\ude00"]}\r\n')
    assert json_file.load(tmp_path / "record.json") == {"a": [1, 2.5, "\U0001f600"]}


def test_a_file_that_is_too_long_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RecordError, match="longer than 16,777,216 bytes"):
        json_file.load(tmp_path / "huge.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1]", "a list"), ('"x"', "a string"), ("true", "a boolean"), ("null", "null"), ("3", "a number")],
)
def test_a_record_is_an_object(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RecordError, match=f"not a JSON object but {message}"):
        json_file.load_object(tmp_path / "record.json")


@dataclass(frozen=True)
class Ship:
    name: str
    tons: Count = 0
    at: tuple[float, float] | None = None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "'name' is missing"),
        ({"name": 3}, "'name' = 3: should be a valid string"),
        ({"name": "x", "tons": "3"}, "'tons' = '3': should be a valid integer"),
        ({"name": "x", "tons": True}, "'tons' = True: should be a valid integer"),
        ({"name": "x", "tons": -1}, "'tons' = -1: should be greater than or equal to 0"),
        ({"name": "x", "at": [1, "y" * 5000]}, "'at.1' = 'yyyy"),
        ([], "should be"),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_is_allowed(table: Any, message: str) -> None:
    with pytest.raises(RecordError) as raised:
        json_file.as_kind(Ship, table, "fleet.json")
    assert message in str(raised.value)
    assert len(str(raised.value)) < 300


def test_keys_of_a_later_version_are_left_out() -> None:
    assert json_file.as_kind(Ship, {"name": "x", "at": [1, 2], "flag": "y"}, "") == Ship("x", at=(1.0, 2.0))


def test_damaged_files_stay_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "state.json"
    for content in ("a", "b"):
        file.write_text(content)
        json_file.report_set_aside(file, "torn")
    assert (tmp_path / "state.json.damaged").read_text() == "a"
    assert (tmp_path / "state.json.damaged-2").read_text() == "b"
    assert "state.json: torn; original: state.json.damaged-2" in capsys.readouterr().out


@pytest.mark.parametrize(("value", "found"), [(3, 3.0), (2.5, 2.5), (True, None), ("3", None), (10**299, 1e299)])
def test_only_numbers_are_numbers(value: object, found: float | None) -> None:
    assert json_file.number(value) == (None if found is None else pytest.approx(found))
