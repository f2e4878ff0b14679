"""Middle of a build: from parsed rows to the rows of each shard, and the tokenizer.

One process drops duplicate and leaked rows by their hashes. Files record the choice, so a killed build resumes after
it, and any process can write a shard.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bigchem.base import atomic
from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.build.chunks import Chunk, ParsedRows, texts
from bigchem.data.build.leakage import Training, drop_leaked
from bigchem.data.build.recipe import BuildConfig
from bigchem.data.storage.index import SPLITS, all_leaked, shard_path
from bigchem.tasks import SPANS, Task

SENTINELS = 100
"""Sentinels of a trained vocabulary for span corruption: as many as T5 has."""

Rows = dict[str, dict[str, npt.NDArray[np.int64]]]
"""Numbers of parsed rows, by split and task."""


class PlannedShard(NamedTuple):
    """A shard to write: split, task, its number within the task, its number of rows."""

    split: str
    task: str
    number: int
    rows: int

    @property
    def path(self) -> str:
        """The shard's path, relative to the data folder."""
        return shard_path(self.split, self.task, self.number)


@dataclass(frozen=True)
class Chosen:
    """A build's output. tokenizer: its fingerprint. shards: in the order of the index. report: counts so far."""

    tokenizer: str
    shards: tuple[PlannedShard, ...]
    report: dict[str, Any]


def choose(
    config: BuildConfig, work: Path, chunks: list[Chunk], sources: list[dict[str, Any]], progress: Progress
) -> Chosen:
    """Chooses rows of all chunks, makes the tokenizer, and saves both in `work`. UserError if nothing is left."""
    tasks = config.known_tasks
    parsed = ParsedRows(chunks, tasks)
    report: dict[str, Any] = {"sources": sources}
    for source in sources:
        _warn_of_selfies(source, progress)
    rows = _without_repeats(parsed, tasks, report)
    rows = _without_leaks(parsed, rows, config.keep_out, report)
    if not rows["train"] and report["leaked"]:
        what = "; ".join(all_leaked(task, leaks) for task, leaks in report["leaked"].items())
        raise UserError(what, "keep_out", "is one file in two splits? otherwise keep them with keep_out = 'none'")
    if not rows["train"]:
        raise UserError("the corpus is empty: no training rows", None, "give a source with split = 'train'")
    for task, leaks in report["leaked"].items():
        if task not in rows["train"]:
            progress.say(all_leaked(task, leaks))
    if config.tokenizer.trained:
        progress.say(f"training a tokenizer of {config.tokenizer.vocab_size} pieces")
    tokenizer = config.tokenizer.make(_training_texts(parsed, tasks, rows["train"]), sentinels(rows["train"]))
    tokenizer.save(work / "data" / "tokenizer")
    with atomic.replace_atomically(work / "data" / "rejected.jsonl") as file:
        for rejected in (r for chunk in chunks for r in chunk.rejected):
            file.write((json.dumps(asdict(rejected), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))
    shards = tuple(_planned_shards(parsed, rows, work, config.shard_rows))
    chosen = Chosen(tokenizer.fingerprint, shards, report)
    atomic.write_atomically(work / "chosen" / "chosen.json", json.dumps(asdict(chosen)))
    return chosen


def read_chosen(work: Path) -> Chosen | None:
    """What `choose` saved; None if it has not finished."""
    try:
        table = json.loads((work / "chosen" / "chosen.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Chosen(table["tokenizer"], tuple(PlannedShard(*planned) for planned in table["shards"]), table["report"])


def rows_of(work: Path, planned: PlannedShard) -> list[tuple[Path, npt.NDArray[np.int64]]]:
    """(chunk file, row numbers inside it) of a shard."""
    with np.load(_saved_file(work, planned.path)) as saved:
        inside = np.split(saved["inside"], np.cumsum(saved["counts"])[:-1])
        return [(work / "parsed" / str(name), rows) for name, rows in zip(saved["names"], inside, strict=True)]


def _warn_of_selfies(source: dict[str, Any], progress: Progress) -> None:
    """Says so if a source has SELFIES and texts that may be SELFIES too."""
    doubtful, decoded = (source["repairs"].get(name, 0) for name in ("doubtful", "selfies"))
    if doubtful and decoded:
        progress.say(
            f"{source['source']}: {decoded:,} rows are SELFIES; {doubtful:,} more may be, but were read as SMILES of "
            "radicals ([C], [O][O]): set selfies = true in this [[sources]] table to decode them all"
        )


def _saved_file(work: Path, path: str) -> Path:
    return work / "chosen" / f"{path}.npz"


def _planned_shards(parsed: ParsedRows, rows: Rows, work: Path, shard_rows: int) -> Iterator[PlannedShard]:
    """Every shard to write, after saving its row numbers to a file."""
    for split, tasks in rows.items():
        for task, chosen in tasks.items():
            for start in range(0, len(chosen), shard_rows):
                own = chosen[start : start + shard_rows]
                planned = PlannedShard(split, task, start // shard_rows, len(own))
                found = parsed.places(own)
                with atomic.replace_atomically(_saved_file(work, planned.path)) as file:
                    np.savez(
                        file,
                        names=np.array([path.name for path, _ in found]),
                        counts=np.array([len(inside) for _, inside in found]),
                        inside=np.concatenate([inside for _, inside in found]),
                    )
                yield planned


def _without_repeats(parsed: ParsedRows, tasks: Iterable[str], report: dict[str, Any]) -> Rows:
    """All rows but duplicates of an earlier one of the same split and task."""
    rows: Rows = {split: {} for split in SPLITS}
    repeats: dict[str, int] = {}
    for split in SPLITS:
        for task in tasks:
            chosen = parsed.select(split, task)
            if len(chosen):
                rows[split][task] = chosen
            if dropped := parsed.count(split, task) - len(chosen):
                repeats[f"{split}/{task}"] = dropped
    report["repeats"] = repeats
    return rows


def _without_leaks(parsed: ParsedRows, rows: Rows, keep_out: str, report: dict[str, Any]) -> Rows:
    """Drops training rows with the source of a held-out row of their task, or the molecule of one of any task."""
    held_out = [(split, task, chosen) for split in ("valid", "test") for task, chosen in rows[split].items()]
    train = {
        task: Training(
            parsed.identities(chosen),
            parsed.same_source(chosen, np.concatenate([chosen[:0], *(rows for _, of, rows in held_out if of == task)])),
        )
        for task, chosen in rows["train"].items()
    }
    about = {f"{split}/{task}": parsed.identities(chosen) for split, task, chosen in held_out}
    stays, report["leaked"] = drop_leaked(train, about, keep_out)
    left = {task: rows["train"][task][mask] for task, mask in stays.items() if mask.any()}
    return {**rows, "train": left}


def _training_texts(
    parsed: ParsedRows, tasks: Mapping[str, Task], train: dict[str, npt.NDArray[np.int64]]
) -> Iterator[str]:
    for task, chosen in train.items():
        for table in texts(parsed.places(chosen)):
            for row in table.to_pylist():
                yield from as_seen(tasks[task], row["source"], row["target"], dict(row["fields"]))


def as_seen(task: Task, source: str, target: str, fields: Mapping[str, str]) -> Iterator[str]:
    """What a vocabulary is trained on: both sides of a row as the model sees them, the source once per prompt."""
    for number in range(len(task.prompts)):
        yield task.prompted(source, fields, number)
    if target:
        yield target


def sentinels(tasks: Iterable[str]) -> int:
    """How many sentinels a vocabulary needs that is trained on rows of these tasks."""
    return SENTINELS if SPANS.keys() & set(tasks) else 0
