"""Drawings by a process that untrusted molecules may crash."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import SimpleNamespace

import pytest

from bigchem.evaluate.serve import drawing
from bigchem.evaluate.serve.drawing import LARGE, LATE, UNREAD, Artist, Drawing, drawn


def test_a_molecule_is_drawn_and_what_is_none_is_not() -> None:
    assert drawn("CC(=O)[O-]~[Na+]").svg.startswith("<svg")
    assert "<path" in drawn("CCO").svg
    for none in ("C(", "", "CCO ethanol", "C* |$;<script>$|", "C" * 20_000):
        assert drawn(none).svg == ""
    assert drawn("C" * 301).why == LARGE


def test_a_reaction_is_drawn_as_one() -> None:
    made = drawn("CC(=O)Cl.NCc1ccccc1>[Na+]~[OH-]>CC(=O)NCc1ccccc1").svg
    assert "width='900px'" in made
    assert made.count("class='bond-") > 15
    assert drawn("[NH3]->[Cu]").svg  # a dative bond
    for none in ("C(>>C", ">>C", "C>>", "C>C", "C" * 200 + ">>" + "C" * 200):
        assert drawn(none).svg == ""


@pytest.fixture(scope="module")
def artist() -> Iterator[Artist]:
    made = Artist(each_s=60.0, all_s=120.0)
    yield made
    made.close()


def test_each_gets_its_drawing_or_a_reason(artist: Artist) -> None:
    made = artist.draw(["CCO", "C(", "C" * 400, "C" * 30_000, "c1ccccc1"])
    assert [bool(one.svg) for one in made] == [True, False, False, False, True]
    assert [one.why for one in made] == ["", UNREAD, LARGE, LARGE, ""]


def test_a_process_that_dies_or_hangs_costs_one_drawing(artist: Artist) -> None:
    assert artist.draw(["C"])[0].svg
    artist._process.kill()
    artist._process.join()
    assert artist.draw(["C"])[0].svg
    artist._each_s, before = 0.0, artist._each_s
    assert artist.draw(["C"]) == [Drawing("", LATE)]
    artist._each_s = before
    assert artist.draw(["C"])[0].svg


def test_all_of_a_request_has_a_limit(artist: Artist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artist, "_all_s", -1.0)
    assert artist.draw(["C", "CC"]) == [Drawing("", LATE)] * 2


def test_the_start_of_the_process_is_not_drawing_time(artist: Artist, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, starts, ready = [0.0], [1000.0, 0.0], artist._ready

    def slow_start() -> Connection | None:
        clock[0] += starts.pop(0)
        return ready()

    monkeypatch.setattr(drawing, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(artist, "_ready", slow_start)
    assert artist.draw(["C"])[0].svg


def test_threads_are_served_in_turn(artist: Artist) -> None:
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = artist.draw(["C" * number])[0].svg

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2, 8)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == drawing.drawn("C" * number).svg for number in range(2, 8))
    assert time.monotonic() - begun < 30
