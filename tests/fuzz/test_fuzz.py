"""Damaged and hostile files are read or refused with a message: no traceback, bounded memory and time."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mutations import mutated
from readers import READERS, Reader

from bigchem.base.errors import UserError

QUICK, THOROUGH = 9, 120
"""Mutated inputs per reader; THOROUGH over all readers is more than 3,000."""
MOST_MEMORY = 1 << 29
MOST_S = 20
LONGEST_MESSAGE = 1500


def _settings(examples: int, **more: Any) -> Any:
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, suppress_health_check=checks, database=None, **more)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_the_sound_file_is_read(reader: Reader, tmp_path: Path) -> None:
    reader.read(_written(reader, reader.content, tmp_path))


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@_settings(QUICK, derandomize=True, phases=[Phase.generate])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_words(reader: Reader, tmp_path: Path, data: st.DataObject) -> None:
    _try(reader, data.draw(mutated(reader.content)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
@_settings(THOROUGH, phases=[Phase.generate, Phase.shrink])
@given(data=st.data())
def test_thousands_of_damaged_files_are(reader: Reader, tmp_path: Path, data: st.DataObject) -> None:
    _try(reader, data.draw(mutated(reader.content)), tmp_path)


def test_thousands_are_tried() -> None:
    assert len(READERS) * THOROUGH >= 3000
    assert len(READERS) * QUICK >= 300


def _try(reader: Reader, content: bytes, folder: Path) -> None:
    file = _written(reader, content, folder)
    message = ""
    with _bounded():
        try:
            reader.read(file)
        except UserError as error:
            message = str(error)
    assert len(message) < LONGEST_MESSAGE + len(str(file))
    assert "Traceback" not in message


def _written(reader: Reader, content: bytes, folder: Path) -> Path:
    """The file in a freshly written folder, since a reader may write into it."""
    for left in folder.rglob("*"):
        if left.is_file():
            left.unlink()
    for name, text in {**reader.beside, reader.file: content}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    return folder / reader.file


@contextmanager
def _bounded() -> Iterator[None]:
    """Limits the block to half a gigabyte of additional memory and twenty seconds."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"read for {MOST_S} s")

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits, before = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_MEMORY, limits[1]))
    signal.alarm(MOST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
