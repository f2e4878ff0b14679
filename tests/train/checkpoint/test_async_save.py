"""When checkpoints are written while training goes on."""

from __future__ import annotations

import pytest

from bigchem.config import RunConfig
from bigchem.train.checkpoint import async_save, host_memory
from bigchem.train.checkpoint.async_save import saves_in_background

GB = 10**9


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int | None]]:
    """What the ranks say of themselves (node, bytes needed, bytes available), for a stand-in of the group."""
    found: list[tuple[str, int, int | None]] = []
    monkeypatch.setattr(host_memory, "available", lambda: None)
    monkeypatch.setattr(async_save, "gathered", lambda own: found or [own])
    monkeypatch.setattr(async_save, "say", print)
    return found


def decided(wanted: object, device: str) -> bool:
    config = RunConfig.model_validate({"checkpoint": {"async_save": wanted}})
    return saves_in_background(config, device, lambda: 3 * GB)


@pytest.mark.parametrize(
    ("wanted", "device", "expected"),
    [("auto", "cuda", True), ("auto", "cpu", False), (True, "cpu", True), (False, "cuda", False)],
)
def test_auto_means_on_gpus(
    nodes: list[tuple[str, int, int | None]], wanted: object, device: str, expected: bool
) -> None:
    assert decided(wanted, device) == expected


def test_a_node_without_room_for_the_copies_of_its_ranks_makes_all_save_at_once(
    nodes: list[tuple[str, int, int | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    nodes += [("a", 3 * GB, 10 * GB), ("a", 3 * GB, 7 * GB), ("b", 3 * GB, 5 * GB)]
    assert decided(True, "cuda")
    assert capsys.readouterr().out == "checkpoints are written while training goes on, from 6 GB of host memory on a\n"
    nodes.append(("b", 3 * GB, 6 * GB))
    assert not decided(True, "cuda")
    expected = "to write them meanwhile takes 6 GB of host memory on b, of which 5 GB are free"
    assert capsys.readouterr().out == f"checkpoints are written while training pauses: {expected}\n"
