"""A real Slurm for the tests of this folder: one per worker, with its own folder and ports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from disruptions import run_of
from distributed import run_ranks
from runs import train_here

from bigchem.config import RunConfig
from bigchem.launch.slurm.testbed.bed import Bed, missing
from bigchem.launch.slurm.testbed.conf import free_port


@pytest.fixture(scope="session")
def slurm_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A testbed of two nodes that ends with this process, however it ends. Tests use `testbed`, connected to it."""
    if (why_not := missing()) is not None:
        pytest.skip(f"no Slurm testbed: {why_not}")
    nodes = ("node1", "node2")
    bed = Bed(tmp_path_factory.mktemp("bed"), nodes, free_port(len(nodes)))
    bed.start(tied=True)
    yield bed
    bed.stop()


@pytest.fixture
def testbed(slurm_bed: Bed, monkeypatch: pytest.MonkeyPatch) -> Bed:
    """The testbed, with this process's environment set for it: submit and squeue work."""
    for name, value in slurm_bed.environment().items():
        monkeypatch.setenv(name, value)
    return slurm_bed


@pytest.fixture(scope="session")
def uninterrupted(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The undisturbed run: one process without Slurm, as neither ledger nor loss depends on who starts how many."""
    config = run_of(small_data, tmp_path_factory.mktemp("calm"), "calm")
    run_ranks(train_here, 1, config)
    return config
