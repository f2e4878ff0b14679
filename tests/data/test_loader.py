from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from bigchem.base.errors import UserError
from bigchem.chemistry.tokens import atom_starts
from bigchem.config import DataConfig, SpansConfig
from bigchem.data import loader as loader_module
from bigchem.data.loader import LoadedStep, Loader
from bigchem.data.order.steps import Step
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import EOS, Tokenizer
from bigchem.model.packed_batch import PackedBatch
from bigchem.tasks import shipped

CONFIG = DataConfig(global_tokens=2000, micro_tokens=1000, max_source_tokens=300, max_target_tokens=300)


def loader(data: Path, rank: int = 0, world_size: int = 1, config: DataConfig = CONFIG, seed: int = 0) -> Loader:
    return Loader(Data(data), config, seed, rank, world_size)


def sides(loaded: LoadedStep) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Source and target ids of every example."""
    found = []
    for batch in loaded.micro_batches:
        source = apart(batch.source_ids, batch.source_cu_seqlens)
        found += zip(source, apart(batch.target_ids, batch.target_cu_seqlens), strict=True)
    return found


def apart(ids: torch.Tensor, cu_seqlens: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(ids[a:b].tolist()) for a, b in pairwise(cu_seqlens.tolist())]


def examples(source: Loader, position: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return sides(source.load(source.plan.steps.at(position)))


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_together_get_exactly_the_step(small_data: Path, world_size: int) -> None:
    whole = sorted(examples(loader(small_data), 100))
    dealt = [example for rank in range(world_size) for example in examples(loader(small_data, rank, world_size), 100)]
    assert sorted(dealt) == whole


def test_a_batch_holds_the_rows_that_the_plan_names_with_their_tasks(small_data: Path) -> None:
    source, data = loader(small_data), Data(small_data)
    step = source.plan.steps.at(40)
    batch = source.read(step, np.arange(len(step.rows)))
    expected = []
    for task, row in zip(step.task_ids.tolist(), source.rows(step).tolist(), strict=True):
        name = ("captioning", "generation", "forward", "retrosynthesis", "actions")[task]
        ids = data.split("train", name).tokens(row)
        expected.append((task, *(tuple(side.tolist()) for side in ids)))
    found = zip(batch.task_ids.tolist(), *zip(*sides(LoadedStep(step, [batch])), strict=True), strict=True)
    assert sorted(found) == sorted(expected)


def test_a_stream_started_anywhere_goes_on_as_the_one_from_the_start(small_data: Path) -> None:
    source = loader(small_data)
    stream = source.steps(0)
    first = [next(stream) for _ in range(4)]
    stream.close()
    resumed = source.steps(first[2].step.start)
    for expected in first[2:]:
        got = next(resumed)
        assert got.step.start == expected.step.start
        assert torch.equal(got.micro_batches[0].source_ids, expected.micro_batches[0].source_ids)
    resumed.close()


def test_the_thread_finishes_micro_batches_before_it_queues_them(small_data: Path) -> None:
    seen = []

    def finish(batch: PackedBatch) -> PackedBatch:
        seen.append(threading.current_thread().name)
        return replace(batch, work={})

    stream = loader(small_data).steps(0, finish)
    assert all(batch.work == {} for batch in next(stream).micro_batches)
    assert set(seen) == {"bigchem-loader"}
    stream.close()


def failing(source: Loader, monkeypatch: pytest.MonkeyPatch, fails: Callable[[int], bool], error: Exception) -> None:
    """Makes reading a step fail if fails(number of earlier calls)."""
    load, calls = source.load, []

    def flaky(plan: Step) -> LoadedStep:
        calls.append(plan.start)
        if fails(len(calls) - 1):
            raise error
        return load(plan)

    monkeypatch.setattr(source, "load", flaky)
    monkeypatch.setattr(loader_module, "RETRY_S", (0.01, 0.01))


@pytest.mark.parametrize(
    ("error", "told"), [(OSError("storage went away"), "storage went away"), (OSError(), "OSError")]
)
def test_a_worker_that_dies_reading_is_replaced_and_repeats_its_step(
    small_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, told: str
) -> None:
    expected = []
    stream = loader(small_data).steps(0)
    expected = [sides(next(stream)) for _ in range(6)]
    stream.close()
    source = loader(small_data)
    failing(source, monkeypatch, lambda calls: calls in (3, 4, 6), error)
    stream = source.steps(0)
    assert [sides(next(stream)) for _ in range(6)] == expected
    stream.close()
    assert capsys.readouterr().err.count(f"loader: {told}; retrying from example") == 3


def test_storage_that_goes_away_for_a_moment_is_waited_for(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Makes shards unreadable, by folders in their places, until they are put back."""
    monkeypatch.setattr(loader_module, "RETRY_S", (0.3, 0.3, 0.3, 0.3, 0.3))
    shutil.copytree(small_data, tmp_path / "data")
    shards = sorted((tmp_path / "data" / "train").glob("*.arrow"))
    source = loader(tmp_path / "data")
    for shard in shards:
        shard.rename(shard.with_suffix(".away"))
        shard.mkdir()

    def put_back_shards() -> None:
        for shard in shards:
            shard.rmdir()
            shard.with_suffix(".away").rename(shard)

    timer = threading.Timer(0.5, put_back_shards)
    timer.start()
    stream = source.steps(0)
    assert sides(next(stream)) == examples(loader(small_data), 0)
    stream.close()
    timer.join()
    output = capsys.readouterr().err
    assert "retrying from example 0" in output
    assert "Traceback" not in output


def test_an_error_that_stays_reaches_the_loop(small_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = loader(small_data)
    failing(source, monkeypatch, lambda calls: True, OSError("disk gone"))
    with pytest.raises(OSError, match="disk gone"):
        next(source.steps(0))


def test_an_error_that_no_repetition_mends_reaches_the_loop_at_once(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = loader(small_data)
    failing(source, monkeypatch, lambda calls: calls == 0, UserError("the shard is damaged"))
    with pytest.raises(UserError, match="damaged"):
        next(source.steps(0))


def test_a_stream_that_is_closed_ends_its_thread(small_data: Path) -> None:
    before = threading.active_count()
    stream = loader(small_data).steps(0)
    next(stream)
    assert threading.active_count() == before + 1
    stream.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_rows_over_the_caps_are_left_out_and_counted(small_data: Path) -> None:
    config = CONFIG.model_copy(update={"max_target_tokens": 50})
    source = loader(small_data, config=config)
    lengths = Data(small_data).split("train", "captioning").lengths
    left_out = np.flatnonzero((lengths > (300, 50)).any(axis=1))
    assert len(left_out)
    rows = source.plan.rows[shipped()["captioning"].id]
    assert rows.stored(np.arange(rows.size)).tolist() == np.setdiff1d(np.arange(len(lengths)), left_out).tolist()
    assert f"skipped: {len(left_out)} too long" in source.plan.describe()
    for position in (0, 30, 60):
        assert source.plan.steps.at(position).lengths[:, 1].max() <= 50


def test_rows_over_the_caps_are_cut_where_that_is_asked_for(small_data: Path) -> None:
    config = CONFIG.model_copy(update={"max_target_tokens": 50, "max_source_tokens": 60, "over_caps": "cut"})
    source, uncut = loader(small_data, config=config), Data(small_data)
    assert sum(rows.num_skipped for rows in source.plan.rows.values()) == 0
    assert "cut" in source.plan.describe()
    step = source.plan.steps.at(0)
    loaded = source.read(step, np.arange(len(step.rows)))
    expected = sorted(map(tuple, step.lengths.tolist()))
    found = sides(LoadedStep(step, [loaded]))
    assert sorted((len(s), len(t)) for s, t in found) == expected
    whole = set()
    for task, row in zip(step.task_ids.tolist(), source.rows(step).tolist(), strict=True):
        name = ("captioning", "generation", "forward", "retrosynthesis", "actions")[task]
        s, t = (side.tolist() for side in uncut.split("train", name).tokens(row))
        whole.add((tuple(s if len(s) <= 60 else [*s[:59], EOS]), tuple(t if len(t) <= 50 else [*t[:49], EOS])))
    assert set(found) == whole
    assert any(len(s) == 60 for s, _ in found)


def test_caps_that_leave_nothing_are_a_user_error(small_data: Path) -> None:
    config = DataConfig(global_tokens=2000, micro_tokens=1000, max_source_tokens=2, max_target_tokens=2)
    with pytest.raises(UserError, match="120 too long"):
        loader(small_data, config=config)


def test_keys_name_the_examples_of_a_step(small_data: Path) -> None:
    source = loader(small_data)
    plan = source.plan.steps.at(0)
    keys = source.keys(plan)
    assert len(keys) == len(plan.rows)
    assert all(len(key) == 16 for key in keys)


def test_capped_data_ends_with_the_word_why(small_data: Path) -> None:
    config = CONFIG.model_copy(update={"max_epochs": 1})
    source = loader(small_data, config=config)
    total = sum(Data(small_data).index.rows("train").values())
    stream, seen = source.steps(0), 0
    while seen < total:
        seen += len(next(stream).step.rows)
    assert seen == total
    with pytest.raises(UserError, match=f"used up after {total} examples"):
        next(stream)


@pytest.mark.parametrize("atoms", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_unlabelled_rows_come_corrupted_anew_each_epoch_and_decode_to_their_text(unlabelled: Path, atoms: bool) -> None:
    config = CONFIG.model_copy(
        update={"mixture": {"smiles_spans": 1.0, "text_spans": 1.0}, "spans": SpansConfig(atoms=atoms)}
    )
    source, data = loader(unlabelled, config=config), Data(unlabelled)
    tokenizer = Tokenizer.load(data.tokenizer_dir)
    by_epoch: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    position = 0
    for _ in range(12):
        step = source.plan.steps.at(position)
        for i in range(len(step.rows)):
            batch = source.read(step, np.array([i]))
            assert [len(batch.source_ids), len(batch.target_ids)] == step.lengths[i].tolist()
            task, row = int(step.task_ids[i]), int(source.rows(step)[i])
            name = "smiles_spans" if task == shipped()["smiles_spans"].id else "text_spans"
            filled = put_back(batch.source_ids.tolist(), batch.target_ids.tolist(), tokenizer.sentinels)
            assert tokenizer.decode_batch([filled]) == [data.split("train", name).text(row)[1]]
            by_epoch.setdefault((task, row), []).append(tuple(batch.source_ids.tolist()))
        position = step.stop
    repeated = [seen for seen in by_epoch.values() if len(seen) > 1]
    assert len(repeated) > 10
    assert sum(len(set(seen)) > 1 for seen in repeated) > len(repeated) / 2


def test_spans_respect_atoms_only_where_that_is_asked_for(unlabelled: Path) -> None:
    data = Data(unlabelled)
    tokenizer = Tokenizer.load(data.tokenizer_dir)
    across = {}
    for atoms in (False, True):
        config = CONFIG.model_copy(update={"mixture": {"smiles_spans": 1.0}, "spans": SpansConfig(atoms=atoms)})
        source = loader(unlabelled, config=config)
        step = source.plan.steps.at(0)
        rows = source.rows(step)
        across[atoms] = 0
        for i in range(len(step.rows)):
            batch = source.read(step, np.array([i]))
            text = data.split("train", "smiles_spans").text(int(rows[i]))[1]
            _, (starts,) = tokenizer.encode_with_starts([text])
            noise = noise_of(batch.source_ids.tolist(), batch.target_ids.tolist(), tokenizer.sentinels)
            borders = np.flatnonzero(noise[1:] != noise[:-1]) + 1
            across[atoms] += not np.isin(np.array(starts)[borders], atom_starts(text)).all()
    assert across[True] < across[False] / 4


def test_another_seed_corrupts_the_same_row_elsewhere(unlabelled: Path) -> None:
    config = CONFIG.model_copy(update={"mixture": {"text_spans": 1.0}})
    first, second = (loader(unlabelled, config=config, seed=seed) for seed in (0, 1))
    step = first.plan.steps.at(0)
    chosen = np.arange(len(step.rows))
    batches = [source.read(step, chosen) for source in (first, first, second)]
    assert torch.equal(batches[0].source_ids, batches[1].source_ids)
    assert not torch.equal(batches[0].source_ids, batches[2].source_ids)


def noise_of(source: list[int], target: list[int], sentinels: list[int]) -> np.ndarray:
    """For each token of the row, whether it is noise."""
    lengths, current = {}, None
    for token in target[:-1]:
        if token in sentinels:
            current = token
            lengths[token] = 0
        else:
            lengths[current] += 1
    return np.concatenate([np.full(lengths.get(token, 1), token in lengths) for token in source[:-1]])


def put_back(source: list[int], target: list[int], sentinels: list[int]) -> list[int]:
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token in sentinels:
            spans[token] = current = []
        else:
            current.append(token)
    return [token for part in source[:-1] for token in spans.get(part, [part])]
