"""What all tests share: a CPU with one thread, the real data where it is, and one small corpus."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from real_files import REAL_DATA, SCIBERT

# Before anything imports torch or deepspeed: more threads than cores make tests slow and their sums vary.
os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", TOKENIZERS_PARALLELISM="false")
# Triton reads this when a kernel is defined: here all of them are interpreted.
os.environ["TRITON_INTERPRET"] = "1"
if SCIBERT.is_dir():
    os.environ.setdefault("BIGCHEM_SCIBERT", str(SCIBERT))

import pytest
import submitit  # noqa: F401  its import closes the streams of logging handlers: not later, in a test that redirects them
from hypothesis import settings
from shared import made_once

if TYPE_CHECKING:
    from bigchem.data.sources.base import Row

settings.register_profile("any machine", deadline=None)  # a busy one is no failure
settings.load_profile("any machine")


STARTS_PROCESSES = re.compile(
    r"^(import (subprocess|multiprocessing|distributed)"
    r"|from (distributed|browser|chaos|runs|engines|concurrent\.futures) import)",
    re.MULTILINE,
)
"""In a test file: its tests are `heavy`."""


@cache
def starts_processes(file: Path) -> bool:
    return STARTS_PROCESSES.search(file.read_text()) is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start processes are marked `heavy` and come first: what is quick fills the gaps at the end. Tests
    marked `data` are skipped where the real data is not."""
    for item in items:
        if starts_processes(item.path):
            item.add_marker("heavy")
    items.sort(key=lambda item: item.get_closest_marker("heavy") is None)  # stable: a file's tests stay together
    if not REAL_DATA.is_dir():
        for item in items:
            if item.get_closest_marker("data"):
                item.add_marker(pytest.mark.skip(reason="no real data: set BIGCHEM_DATA"))


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of the embedded corpus: 600 training rows, 50 test rows."""
    from bigchem.base.progress import Progress
    from bigchem.data.build.pipeline import build
    from bigchem.data.build.recipe import BuildConfig
    from bigchem.data.sources.base import SourceConfig

    sources = (
        SourceConfig(format="synthetic", split="train", rows=600, seed=1),
        SourceConfig(format="synthetic", split="test", rows=50, seed=2),
    )

    def make(folder: Path) -> None:
        build(BuildConfig(sources=sources, shard_rows=70), folder / "data", Progress(quiet=True), workers=1)

    return made_once(tmp_path_factory, "small", make) / "data"


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory: pytest.TempPathFactory, corpus: list[Row]) -> Path:
    """A data folder of two unlabelled corpora, molecules and captions of the embedded one: 120 and 60 rows."""
    from bigchem.base.progress import Progress
    from bigchem.data.build.pipeline import build
    from bigchem.data.build.recipe import BuildConfig
    from bigchem.data.sources.base import SourceConfig

    folder = tmp_path_factory.mktemp("unlabelled")
    captioned = [row for row in corpus if row.task == "captioning"]
    (folder / "molecules.smi").write_text("".join(f"{row.source}\n" for row in captioned[:120]))
    (folder / "texts.txt").write_text("".join(f"{row.target}\n" for row in captioned[:60]))
    sources = (
        SourceConfig(format="smiles_lines", split="train", path=str(folder / "molecules.smi")),
        SourceConfig(format="text_lines", split="train", path=str(folder / "texts.txt")),
    )
    build(BuildConfig(sources=sources), folder / "data", Progress(quiet=True), workers=1)
    return folder / "data"


@pytest.fixture(scope="session")
def corpus() -> list[Row]:
    """The first rows of the embedded corpus, all tasks."""
    from synthetic_rows import config, read

    return read(config(seed=7))
