"""state.json after a power cut, from another version, or edited by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bigchem.base.errors import UserError
from bigchem.run.lifecycle import State, Writer
from bigchem.run.state import inspect_state, move, read_state, write_state


@pytest.mark.parametrize("content", [b"", b"\0" * 90, b'{"state": "runn', b"\xff", b"[]", b"{}"])
def test_a_torn_state_does_not_strand_a_run(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state.json").write_bytes(content)
    state, damage = inspect_state(tmp_path)
    assert state == {"state": "new"}
    assert damage
    assert move(tmp_path, Writer.RANK_0, State.PREPARED, step=3)
    assert (read_state(tmp_path)["state"], read_state(tmp_path)["step"]) == ("prepared", 3)
    assert (tmp_path / "state.json.damaged").read_bytes() == content
    assert "original: state.json.damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("field", "value"),
    [("step", "12"), ("steps", -1), ("step", 10**200), ("time", "now"), ("time", 1e300), ("given_up", 1)],
)
def test_a_field_of_a_wrong_type_is_left_out_and_named(tmp_path: Path, field: str, value: Any) -> None:
    write_state(tmp_path, "failed", reason="r", end="error")
    table = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**table, field: value}))
    state, damage = inspect_state(tmp_path)
    assert (state["state"], state["reason"], field in state) == ("failed", "r", False)
    assert damage == f"state.json: wrong type of {field}"


@pytest.mark.parametrize("table", [{"state": "sleeping"}, {"state": "failed", "end": "asleep"}, {"state": []}])
def test_what_another_version_wrote_is_refused_and_not_damaged(tmp_path: Path, table: dict[str, Any]) -> None:
    (tmp_path / "state.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match="not a state that this version knows"):
        read_state(tmp_path)
    write_state(tmp_path, "prepared")
    assert not (tmp_path / "state.json.damaged").exists()


def test_an_end_that_is_null_is_none(tmp_path: Path) -> None:
    write_state(tmp_path, "trained", end=None, reason=None)
    assert read_state(tmp_path).keys() == {"state", "time"}
