"""Sources -> rows -> tokens -> shards: what `bigchem data build` does.

1. Sources are parsed in parallel, a file for every chunk of records (parse.py).
2. Repeated and leaked rows are left out, by hashes, in this process (leakage.py).
3. The tokenizer is taken or trained.
4. Shards are tokenised and written in parallel, one to a worker.

All of it goes to a folder aside; the index is written last, and the folder renamed. A build that was killed goes on
where it was: what a chunk or a shard holds depends on the recipe alone, so that the result is the same to the byte.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bigchem import strict
from bigchem.data.columns import write_lengths, write_shard
from bigchem.data.index import SPLITS, Index, Shard, other_files, shard_path
from bigchem.data.leakage import Training, drop_leaked
from bigchem.data.parse import ParsedRows, check_sources, parse_sources, texts
from bigchem.data.recipe import BuildConfig, recipe_hash
from bigchem.data.shards import Data, prompted
from bigchem.data.tokenizer import Tokenizer
from bigchem.data.workers import in_order, pool
from bigchem.data.workfolder import publish, refuse_foreign, tidy, work_folder
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
    out = out.resolve()  # a link to a folder on another disk stays a link
    refuse_foreign(out)
    recipe = recipe_hash(config)
    if (out / "index.json").is_file() and not overwrite:
        present = _recipe_of(out)
        if present == recipe:
            progress.say(f"{out} is already built from this recipe: nothing to do")
            tidy(out)
            return Data(out).index
        why = "this version cannot read it" if present is None else "built from another recipe"
        raise UserError(f"holds data: {why}", str(out), "choose another folder, or --overwrite")

    workers = workers or os.cpu_count() or 1
    with work_folder(out, recipe, progress) as work:
        if not (work / "data" / "index.json").is_file():
            try:
                with pool(workers, str(out)) as processes:
                    index = _build(config, work, progress, processes, workers)
            except KeyboardInterrupt:
                progress.say("interrupted: the same command goes on from here")
                raise
            strict.write_atomically(work / "data" / "index.json", replace(index, recipe=recipe).to_json())
        publish(work, out)
    return Data(out).index


def _recipe_of(out: Path) -> str | None:
    """The recipe that a published folder states; None of one that this version cannot read."""
    try:
        return Data(out).index.recipe
    except UserError:
        return None


def _build(config: BuildConfig, work: Path, progress: Progress, processes: ProcessPoolExecutor, workers: int) -> Index:
    """Everything but the index, into `work`."""
    check_sources(config)
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
    tokenizer.save(work / "data" / "tokenizer")
    shards, seconds = _write_shards(
        _shard_jobs(parsed, rows, work, config.shard_rows), work, progress, processes, workers
    )
    with strict.replace_atomically(work / "data" / "rejected.jsonl") as file:
        for rejected in (r for chunk in chunks for r in chunk.rejected):
            file.write((json.dumps(asdict(rejected), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
    for chunk in chunks:
        seconds.update(chunk.seconds)
    progress.say("workers' time: " + ", ".join(f"{name} {spent:.1f} s" for name, spent in seconds.most_common()))
    return Index(tokenizer.fingerprint, shards, files=other_files(work / "data"), report=report)


def _without_repeats(parsed: ParsedRows, report: dict[str, Any]) -> Rows:
    """All rows but those that are equal to an earlier one of the same split and task."""
    rows: Rows = {split: {} for split in SPLITS}
    repeats: dict[str, int] = {}
    for split in SPLITS:
        for task in TRAINABLE_NAMES:
            chosen = parsed.select(split, task)
            if len(chosen):
                rows[split][task] = chosen
            if dropped := parsed.count(split, task) - len(chosen):
                repeats[f"{split}/{task}"] = dropped
    report["repeats"] = repeats
    return rows


def _without_leaks(parsed: ParsedRows, rows: Rows, keep_out: str, report: dict[str, Any]) -> Rows:
    """Drops training rows with the source of a valid or test row of their task, or about a molecule of one of any
    task."""
    held_out = [(split, task, chosen) for split in ("valid", "test") for task, chosen in rows[split].items()]
    train = {
        task: Training(
            parsed.identities(chosen),
            parsed.asked(chosen, np.concatenate([chosen[:0], *(rows for _, of, rows in held_out if of == task)])),
        )
        for task, chosen in rows["train"].items()
    }
    about = {f"{split}/{task}": parsed.identities(chosen) for split, task, chosen in held_out}
    kept, report["leaked"] = drop_leaked(train, about, keep_out)
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
        write_lengths(work / "data", split, task, np.concatenate(parts))
    return shards, seconds


def _write_shard(
    work: Path, split: str, task: str, number: int, places: list[tuple[Path, npt.NDArray[np.int64]]]
) -> tuple[Shard, npt.NDArray[np.integer], dict[str, float]]:
    """Tokenises and writes one shard; what it is, its lengths [rows, 2], seconds. What is there already is taken."""
    path = shard_path(split, task, number)
    made = work / "made" / f"{path}.npz"
    if made.is_file() and (work / "data" / path).is_file():
        with np.load(made) as facts:
            return Shard(**json.loads(str(facts["shard"]))), facts["lengths"], {}
    begun = time.perf_counter()
    tokenizer = Tokenizer.load(work / "data" / "tokenizer")
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
    shard = write_shard(work / "data", path, columns)
    with strict.replace_atomically(made) as file:
        np.savez(file, lengths=lengths, shard=json.dumps(asdict(shard)))
    return shard, lengths, {"tokenising": encoded - begun, "writing": time.perf_counter() - encoded}
