"""A real Slurm for the tests of this folder: one per worker, in a folder and on ports of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slurm.testbed.bed import Bed, missing
from slurm.testbed.conf import free_port


@pytest.fixture(scope="session")
def slurm_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A testbed of two nodes that ends with this process, however it ends. Tests use `testbed`, which speaks to it."""
    if (why_not := missing()) is not None:
        pytest.skip(f"no Slurm testbed: {why_not}")
    nodes = ("node1", "node2")
    bed = Bed(tmp_path_factory.mktemp("bed"), nodes, free_port(len(nodes)))
    bed.start(tied=True)
    yield bed
    bed.stop()


@pytest.fixture
def testbed(slurm_bed: Bed, monkeypatch: pytest.MonkeyPatch) -> Bed:
    """The testbed, and this process's environment speaking to it: submit and squeue work."""
    for name, value in slurm_bed.environment().items():
        monkeypatch.setenv(name, value)
    return slurm_bed
