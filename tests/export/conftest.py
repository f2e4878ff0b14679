"""Fixtures of the tests of exports."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_checkpoints import SHAPE, made_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints of an untied model, saved by three ranks."""
    return made_run(tmp_path_factory.mktemp("runs") / "run", SHAPE, 3, 6, 9, world_size=3)
