from __future__ import annotations

from datetime import timedelta

import torch
from distributed import run_ranks
from torch import distributed as dist

from bigchem.launch.group import COLLECTIVE_TIMEOUT
from bigchem.train.ranks import on_rank0


def _raising() -> tuple[str, timedelta]:
    """What comes of an unexpected error, and how long a group waits that is made as DeepSpeed makes its own."""

    def fails() -> None:
        raise KeyError("manifest")

    try:
        on_rank0(fails)
    except (KeyError, RuntimeError) as error:
        told = f"{type(error).__name__}: {error}"
    group = dist.new_group([0, 1])
    return told, group._get_backend(torch.device("cpu")).options._timeout


def test_an_unexpected_error_of_rank_0_ends_all_and_groups_wait_as_long_as_the_world() -> None:
    found = run_ranks(_raising, 2, timeout=60)
    assert [told for told, _ in found] == ["KeyError: 'manifest'", "RuntimeError: rank 0: KeyError: 'manifest'"]
    assert [timeout for _, timeout in found] == [COLLECTIVE_TIMEOUT] * 2
