from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from bigchem.config import DataConfig
from bigchem.data.loader import Loader, pack
from bigchem.data.shards import Data
from bigchem.errors import UserError

CONFIG = DataConfig(global_tokens=2000, micro_tokens=1000, max_source_tokens=300, max_target_tokens=300)


def loader(data: Path, rank: int = 0, world_size: int = 1, config: DataConfig = CONFIG, seed: int = 0) -> Loader:
    return Loader(Data(data), config, seed, rank, world_size)


def examples(source: Loader, position: int) -> list[tuple[int, ...]]:
    """Target ids of every example that a rank gets in the step at `position`."""
    found = []
    for batch in source.load(source.plan(position)).micro_batches:
        bounds = batch.target_cu_seqlens.tolist()
        found += [tuple(batch.target_ids[a:b].tolist()) for a, b in pairwise(bounds)]
    return found


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_together_get_exactly_the_step(small_data: Path, world_size: int) -> None:
    whole = sorted(examples(loader(small_data), 100))
    dealt = [example for rank in range(world_size) for example in examples(loader(small_data, rank, world_size), 100)]
    assert sorted(dealt) == whole


def test_a_stream_started_anywhere_goes_on_as_the_one_from_the_start(small_data: Path) -> None:
    source = loader(small_data)
    stream = source.steps(0)
    first = [next(stream) for _ in range(4)]
    stream.close()
    resumed = source.steps(first[2].plan.start)
    for expected in first[2:]:
        got = next(resumed)
        assert got.plan.start == expected.plan.start
        assert torch.equal(got.micro_batches[0].source_ids, expected.micro_batches[0].source_ids)
    resumed.close()


def test_an_error_while_reading_ahead_reaches_the_loop(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = loader(small_data)
    monkeypatch.setattr(source, "load", lambda plan: (_ for _ in ()).throw(OSError("disk gone")))
    with pytest.raises(OSError, match="disk gone"):
        next(source.steps(0))


def test_rows_over_the_caps_are_left_out_and_counted(small_data: Path) -> None:
    config = DataConfig(global_tokens=2000, micro_tokens=1000, max_source_tokens=300, max_target_tokens=50)
    source = loader(small_data, config=config)
    assert source.left_out["captioning"] > 0
    for position in (0, 30, 60):
        assert source.plan(position).lengths[:, 1].max() <= 50


def test_caps_that_leave_nothing_are_a_user_error(small_data: Path) -> None:
    config = DataConfig(global_tokens=2000, micro_tokens=1000, max_source_tokens=2, max_target_tokens=2)
    with pytest.raises(UserError, match="raise the caps"):
        loader(small_data, config=config)


def test_keys_name_the_examples_of_a_step(small_data: Path) -> None:
    source = loader(small_data)
    plan = source.plan(0)
    keys = source.keys(plan)
    assert len(keys) == len(plan.rows)
    assert all(len(key) == 16 for key in keys)


def test_a_rank_without_examples_gets_a_batch_without_labels() -> None:
    batch = pack([], [], torch.zeros(0).numpy())
    assert batch.source_cu_seqlens.tolist() == [0, 1]
    assert batch.target_ids.tolist() == [-100]
