"""Sources -> rows -> tokens -> shards: what `bigchem data build` does.

1. Sources are parsed in parallel, a file for every chunk of records (parse.py).
2. Repeated and leaked rows are left out, by hashes, in this process (leakage.py).
3. The tokenizer is taken or trained.
4. Shards are tokenised and written in parallel, one to a worker.

All of it goes to a folder aside; the index is written last, and the folder renamed. A build that was killed goes on
where it was: what a chunk or a shard holds depends on the recipe alone, so that the result is the same to the byte.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigchem import strict
from bigchem.data.index import FORMAT, SPLITS, Index, Shard, other_files, shard_path
from bigchem.data.leakage import drop_leaked
from bigchem.data.parse import ParsedRows, parse_sources, texts
from bigchem.data.recipe import BuildConfig, recipe_hash
from bigchem.data.shards import Data, prompted, write_lengths, write_shard
from bigchem.data.tokenizer import Tokenizer
from bigchem.data.workers import in_order, pool
from bigchem.errors import UserError
from bigchem.progress import Progress
from bigchem.tasks import SPAN_TASKS, TRAINABLE_NAMES

ENCODE = 1000
"""Rows tokenised at a time."""
SENTINELS = 100
"""Of a trained vocabulary for span corruption: as many as T5 has."""

Rows = dict[str, dict[str, npt.NDArray[np.int64]]]
"""Numbers of parsed rows, by split and task."""


def build(
    config: BuildConfig, out: Path, progress: Progress, *, workers: int | None = None, overwrite: bool = False
) -> Index:
    """Builds the data folder `out`. An equal build that is already there is left as it is and returned."""
    recipe = recipe_hash(config)
    if (out / "index.json").is_file() and not overwrite:
        index = Data(out).index
        if index.recipe == recipe:
            progress.say(f"{out} is already built from this recipe: nothing to do")
            return index
        raise UserError("holds data built from another recipe", str(out), "choose another folder, or --overwrite")
    if out.exists() and any(out.iterdir()) and not (out / "index.json").is_file():
        raise UserError("is not empty and holds no data of ours", str(out), "choose another folder")

    workers = workers or os.cpu_count() or 1
    with _work_folder(out, recipe, progress) as work:
        if not (work / "index.json").is_file():
            for leftover in work.rglob(".*.partial"):  # of a build that was killed while it wrote
                leftover.unlink()
            with pool(workers, str(out)) as processes:
                index = _build(config, work, progress, processes, workers)
            strict.write_atomically(work / "index.json", replace(index, recipe=recipe).to_json())
        _publish(work, out)
    return Data(out).index


def _build(config: BuildConfig, work: Path, progress: Progress, processes: ProcessPoolExecutor, workers: int) -> Index:
    """Everything but the index into the folder `work`."""
    chunks, sources = parse_sources(config, work / "parsed", progress, processes, workers)
    parsed = ParsedRows(chunks)
    report: dict[str, Any] = {"sources": sources}
    rows = _without_repeats(parsed, report)
    rows = _without_leaks(parsed, rows, config.keep_out, report)
    if not rows["train"]:
        raise UserError("the corpus is empty: no training rows", None, "give a source with split = 'train'")
    if config.tokenizer.t5 is None:
        progress.say(f"training a tokenizer of {config.tokenizer.vocab_size} pieces")
    sentinels = SENTINELS if SPAN_TASKS.keys() & rows["train"].keys() else 0
    tokenizer = config.tokenizer.make(_training_texts(parsed, rows["train"]), sentinels)
    tokenizer.save(work / "tokenizer")
    shards, seconds = _write_shards(
        _shard_jobs(parsed, rows, work, config.shard_rows), work, progress, processes, workers
    )
    with strict.replace_atomically(work / "rejected.jsonl") as file:
        for rejected in (r for chunk in chunks for r in chunk.rejected):
            file.write((json.dumps(asdict(rejected), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
    for chunk in chunks:
        seconds.update(chunk.seconds)
    progress.say("workers' time: " + ", ".join(f"{name} {spent:.1f} s" for name, spent in seconds.most_common()))
    return Index(tokenizer.fingerprint, shards, files=other_files(work), report=report)


@contextmanager
def _work_folder(out: Path, recipe: str, progress: Progress) -> Iterator[Path]:
    """The folder aside, with what an interrupted build of the same recipe left in it. One build at a time."""
    work = out.with_name(f".{out.name}.partial")
    work.mkdir(parents=True, exist_ok=True)
    folder = os.open(work, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between the two calls another build may have finished and renamed the folder.
        if not work.is_dir() or not os.path.samestat(os.fstat(folder), work.stat()):
            raise BlockingIOError
        state, stated = work / "recipe", f"{FORMAT} {recipe}\n"
        if not state.is_file() or state.read_text(encoding="utf-8") != stated:
            _empty(work)
            strict.write_atomically(state, stated)
        elif any((work / "parsed").glob("*")):
            progress.say(f"going on with an interrupted build of {out}")
        yield work
    except BlockingIOError:
        raise UserError("another build is writing it", str(out), "wait for that one, or end it") from None
    finally:
        os.close(folder)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _without_repeats(parsed: ParsedRows, report: dict[str, Any]) -> Rows:
    """All rows but those that are equal to an earlier one of the same split and task."""
    rows: Rows = {}
    repeats: dict[str, int] = {}
    for split in SPLITS:
        for task in TRAINABLE_NAMES:
            chosen = parsed.select(split, task)
            if len(chosen):
                rows.setdefault(split, {})[task] = chosen
            if dropped := parsed.count(split, task) - len(chosen):
                repeats[f"{split}/{task}"] = dropped
    report["repeats"] = repeats
    return rows


def _without_leaks(parsed: ParsedRows, rows: Rows, keep_out: str, report: dict[str, Any]) -> Rows:
    """Drops training rows about a molecule that a valid or test row of any task is about."""
    held_out = {
        f"{split}/{task}": parsed.identities(chosen)
        for split, tasks in rows.items()
        if split != "train"
        for task, chosen in tasks.items()
    }
    train = {task: parsed.identities(chosen) for task, chosen in rows.get("train", {}).items()}
    kept, report["leaked"] = drop_leaked(train, held_out, keep_out)
    left = {task: rows["train"][task][mask] for task, mask in kept.items() if mask.any()}
    return {**rows, "train": left}


def _training_texts(parsed: ParsedRows, train: dict[str, npt.NDArray[np.int64]]) -> Iterator[str]:
    """Both sides of every training row, as the model sees them."""
    for task, chosen in train.items():
        for table in texts(parsed.places(chosen)):
            for source, target in zip(table["source"].to_pylist(), table["target"].to_pylist(), strict=True):
                yield prompted(task, source)
                if target:
                    yield target


Job = tuple[Path, str, str, int, list[tuple[Path, npt.NDArray[np.int64]]]]
"""Work folder, split, task, number of the shard, and where its rows are."""


def _shard_jobs(parsed: ParsedRows, rows: Rows, work: Path, shard_rows: int) -> list[Job]:
    return [
        (work, split, task, start // shard_rows, parsed.places(chosen[start : start + shard_rows]))
        for split, tasks in rows.items()
        for task, chosen in tasks.items()
        for start in range(0, len(chosen), shard_rows)
    ]


def _write_shards(
    jobs: list[Job], work: Path, progress: Progress, processes: ProcessPoolExecutor, workers: int
) -> tuple[dict[str, dict[str, list[Shard]]], Counter[str]]:
    """Shards by split and task, and the seconds that writing them took; writes the lengths of each task's rows too."""
    shards: dict[str, dict[str, list[Shard]]] = {}
    lengths: dict[tuple[str, str], list[npt.NDArray[np.integer]]] = {}
    seconds: Counter[str] = Counter()
    with progress.bar("writing shards", sum(len(inside) for job in jobs for _, inside in job[-1])) as bar:
        for job, (shard, own, took) in zip(jobs, in_order(processes, _write_shard, jobs, 2 * workers), strict=True):
            _, split, task, *_ = job
            shards.setdefault(split, {}).setdefault(task, []).append(shard)
            lengths.setdefault((split, task), []).append(own)
            seconds.update(took)
            bar.advance(shard.rows)
    for (split, task), parts in lengths.items():
        write_lengths(work, split, task, np.concatenate(parts))
    return shards, seconds


def _write_shard(
    work: Path, split: str, task: str, number: int, places: list[tuple[Path, npt.NDArray[np.int64]]]
) -> tuple[Shard, npt.NDArray[np.integer], dict[str, float]]:
    """Tokenises and writes one shard; what it is, its lengths [rows, 2], seconds. What is there already is taken."""
    path = shard_path(split, task, number)
    made = work / "made" / f"{path}.npz"
    if made.is_file():
        with np.load(made) as facts:
            return Shard(**json.loads(str(facts["shard"]))), facts["lengths"], {}
    begun = time.perf_counter()
    tokenizer = Tokenizer.load(work / "tokenizer")
    columns: dict[str, list[Any]] = {"key": [], "source": [], "target": [], "source_ids": [], "target_ids": []}
    for table in texts(places):
        columns["key"] += [f"{key:016x}" for key in table["key"].to_pylist()]
        columns["source"] += table["source"].to_pylist()
        columns["target"] += table["target"].to_pylist()
    for start in range(0, len(columns["key"]), ENCODE):
        sources, targets = (columns[side][start : start + ENCODE] for side in ("source", "target"))
        columns["source_ids"] += tokenizer.encode_batch([prompted(task, source) for source in sources])
        # The rows of a span task have no target of their own: it is made when they are read.
        columns["target_ids"] += [[]] * len(targets) if task in SPAN_TASKS else tokenizer.encode_batch(targets)
    encoded = time.perf_counter()
    lengths = np.array([[len(s), len(t)] for s, t in zip(columns["source_ids"], columns["target_ids"], strict=True)])
    shard = write_shard(work, path, columns)
    with strict.replace_atomically(made) as file:
        np.savez(file, lengths=lengths, shard=json.dumps(asdict(shard)))
    return shard, lengths, {"tokenising": encoded - begun, "writing": time.perf_counter() - encoded}


def _publish(work: Path, out: Path) -> None:
    """Gives a complete folder its name. May be interrupted anywhere, and done again."""
    for name in ("parsed", "made"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "recipe").unlink(missing_ok=True)
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.replace(old)
    work.replace(out)
    shutil.rmtree(old, ignore_errors=True)
