"""`bigchem data build`: sources -> rows -> tokens -> shards.

1. Workers parse the sources, one file per chunk of records (parse.py).
2. This process drops duplicate and leaked rows, and loads or trains the tokenizer (select.py).
3. Workers tokenise and write the shards, one each at a time.

All output goes to a work folder; the index is written last, then the folder is renamed. A killed build resumes where
it was, and the result is the same to the byte: chunks and shards depend only on the recipe.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bigchem.base import atomic
from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.build.chunks import texts
from bigchem.data.build.lossy import Lossy, check_lossy, count_lossy, sum_lossy
from bigchem.data.build.parse import check_sources, parse_sources
from bigchem.data.build.recipe import BuildConfig, recipe_hash
from bigchem.data.build.select import PlannedShard, choose, read_chosen, rows_of
from bigchem.data.build.work_folder import publish, refuse_foreign_folder, remove_leftovers, work_folder
from bigchem.data.build.workers import cores, in_order, pool
from bigchem.data.storage.columns import write_lengths, write_shard
from bigchem.data.storage.index import Index, Shard, other_files
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.tasks import Task

ENCODE = 1000
"""Rows tokenised at a time."""


def build(
    config: BuildConfig, out: Path, progress: Progress, *, workers: int | None = None, overwrite: bool = False
) -> Index:
    """Builds the data folder `out` and returns its index. Does nothing if it is already built from this recipe."""
    out = out.resolve()  # a link to a folder on another disk stays a link
    recipe = recipe_hash(config)
    if is_built(out, config, recipe, progress, overwrite=overwrite):
        return Data(out).index
    workers = workers or cores()
    with work_folder(out, recipe, progress) as work:
        if not (work / "data" / "index.json").is_file():
            try:
                with pool(workers, str(out)) as processes:
                    index = _build(config, work, progress, processes, workers)
            except KeyboardInterrupt:
                progress.say("interrupted: repeat the command to resume")
                raise
            atomic.write_atomically(work / "data" / "index.json", replace(index, recipe=recipe).to_json())
        publish(work, out)
    return Data(out).index


def is_built(out: Path, config: BuildConfig, recipe: str, progress: Progress, *, overwrite: bool) -> bool:
    """Whether `out` is already built from this recipe, whose licences it then states. UserError if it contains anything
    a build must not replace."""
    refuse_foreign_folder(out)
    if overwrite or not (out / "index.json").is_file():
        return False
    present = _recipe_of(out)
    if present != recipe:
        which = "that this version cannot read" if present is None else "built from another recipe"
        raise UserError(f"contains data {which}", str(out), "choose another folder, or --overwrite")
    progress.say(f"{out} is already built from this recipe: nothing to do")
    _state_licenses(out, config, progress)
    remove_leftovers(out)
    return True


def _state_licenses(out: Path, config: BuildConfig, progress: Progress) -> None:
    """Brings the report's licences up to date: stating one must not need another build."""
    index = Data(out).index
    entries = index.report.get("sources", [])
    stated = [{"license": source.license} if source.license else {} for source in config.sources]
    sources = [
        {name: value for name, value in {**entry, "license": None, **own}.items() if value is not None}
        for entry, own in zip(entries, stated, strict=True)
    ]
    if sources != entries:
        stating = replace(index, report={**index.report, "sources": sources})
        atomic.write_atomically(out / "index.json", stating.to_json())
        progress.say("its report now has the recipe's licences")


def _recipe_of(out: Path) -> str | None:
    """The recipe hash of a published folder; None if this version cannot read it."""
    try:
        return Data(out).index.recipe
    except UserError:
        return None


def _build(config: BuildConfig, work: Path, progress: Progress, processes: ProcessPoolExecutor, workers: int) -> Index:
    """Builds everything in `work` but the index, and returns that."""
    seconds: Counter[str] = Counter()
    chosen = read_chosen(work)
    if chosen is None:
        check_sources(config)
        chunks, sources = parse_sources(config, work / "parsed", progress, processes, workers)
        for chunk in chunks:
            seconds.update(chunk.seconds)
        chosen = choose(config, work, chunks, sources, progress)
    tasks = config.known_tasks
    jobs = shard_jobs(work, chosen.shards, tasks)
    shards, lossy = _write_shards(jobs, work, progress, processes, workers, seconds)
    check_lossy(lossy, config.max_lossy)
    progress.say("workers' time: " + ", ".join(f"{name} {spent:.1f} s" for name, spent in seconds.most_common()))
    return Index(
        chosen.tokenizer,
        shards,
        known=tasks.only(task for made in shards.values() for task in made),
        files=other_files(work / "data"),
        report={**chosen.report, "lossy": lossy},
    )


def _write_shards(
    jobs: list[tuple[Path, PlannedShard, Task]],
    work: Path,
    progress: Progress,
    processes: ProcessPoolExecutor,
    workers: int,
    seconds: Counter[str],
) -> tuple[dict[str, dict[str, list[Shard]]], dict[str, dict[str, Any]]]:
    """Writes shards and lengths. Returns the shards by split and task, and sum_lossy's report. seconds: added to, by
    phase."""
    shards: dict[str, dict[str, list[Shard]]] = {}
    lossy = []
    lengths: dict[tuple[str, str], list[npt.NDArray[np.integer]]] = {}
    with progress.bar("writing shards", sum(planned.rows * len(task.prompts) for _, planned, task in jobs)) as bar:
        for (_, planned, _), made in zip(jobs, in_order(processes, make_shard, jobs, 2 * workers), strict=True):
            shards.setdefault(planned.split, {}).setdefault(planned.task, []).append(made.shard)
            lengths.setdefault((planned.split, planned.task), []).append(made.lengths)
            lossy.append((planned.task, made.lossy))
            seconds.update(made.seconds)
            bar.advance(made.shard.rows)
    for (split, task), parts in lengths.items():
        write_lengths(work / "data", split, task, np.concatenate(parts))
    return shards, sum_lossy(lossy)


def shard_jobs(
    work: Path, planned: Iterable[PlannedShard], tasks: Mapping[str, Task]
) -> list[tuple[Path, PlannedShard, Task]]:
    """The arguments of `make_shard` for these shards."""
    return [(work, shard, tasks[shard.task]) for shard in planned]


def made_file(work: Path, planned: PlannedShard) -> Path:
    """The file written after a shard: if it exists, so does the shard."""
    return work / "made" / f"{planned.path}.npz"


class WrittenShard(NamedTuple):
    """A written shard. lengths: [rows, 2]. lossy: asdict(Lossy) by side. seconds: of work, by phase."""

    shard: Shard
    lengths: npt.NDArray[np.integer]
    lossy: dict[str, dict[str, Any]]
    seconds: dict[str, float]


def make_shard(work: Path, planned: PlannedShard, task: Task) -> WrittenShard:
    """Tokenises and writes one shard, unless it exists: each row once per prompt."""
    path = planned.path
    made = made_file(work, planned)
    if made.is_file() and (work / "data" / path).is_file():
        with np.load(made) as facts:
            shard = Shard(**json.loads(str(facts["shard"])))
            return WrittenShard(shard, facts["lengths"], json.loads(str(facts["lossy"])), {})
    begun = time.perf_counter()
    tokenizer = Tokenizer.load(work / "data" / "tokenizer")
    columns: dict[str, list[Any]] = {"key": [], "source": [], "target": [], "source_ids": [], "target_ids": []}
    asked: list[str] = []
    for table in texts(rows_of(work, planned)):
        for row in table.to_pylist():
            for number in range(len(task.prompts)):
                columns["key"].append(f"{row['key']:016x}")
                columns["source"].append(row["source"])
                columns["target"].append(row["target"])
                asked.append(task.prompted(row["source"], dict(row["fields"]), number))
    lossy = {"source": Lossy(), "target": Lossy()}
    for start in range(0, len(columns["key"]), ENCODE):
        sources, targets = (columns[side][start : start + ENCODE] for side in ("source", "target"))
        whole = asked[start : start + ENCODE]
        ids = tokenizer.encode_batch(whole)
        prompt = task.only_prompt
        lossy["source"].add(count_lossy(tokenizer, whole if prompt is None else sources, ids, prompt or ""))
        columns["source_ids"] += ids
        # Rows of a span task have no target: the loader makes it.
        ids = [[]] * len(targets) if task.spans else tokenizer.encode_batch(targets)
        lossy["target"].add(count_lossy(tokenizer, targets, ids))
        columns["target_ids"] += ids
    encoded = time.perf_counter()
    lengths = np.array([[len(s), len(t)] for s, t in zip(columns["source_ids"], columns["target_ids"], strict=True)])
    shard = write_shard(work / "data", path, columns)
    noted = {side: asdict(counts) for side, counts in lossy.items() if side == "source" or not task.spans}
    with atomic.replace_atomically(made) as file:
        np.savez(file, lengths=lengths, shard=json.dumps(asdict(shard)), lossy=json.dumps(noted))
    seconds = {"tokenising": encoded - begun, "writing": time.perf_counter() - encoded}
    return WrittenShard(shard, lengths, noted, seconds)
