"""Sources -> rows -> tokens -> shards: what `bigchem data build` does.

Rows are parsed in parallel, repeated and leaked ones are left out, the tokenizer is taken or trained, and the shards
are written to a folder aside that is renamed when all of it is there. Building what is already built does nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bigchem import strict
from bigchem.data.leakage import drop_leaked, identity
from bigchem.data.shards import SPLITS, Data, Index, Shard, ShardWriter, prompted
from bigchem.data.sources import reader
from bigchem.data.sources.base import Record, Row, RowError, SourceConfig
from bigchem.data.tokenizer import Smiles, Tokenizer
from bigchem.errors import UserError
from bigchem.progress import Progress
from bigchem.strict import Fraction, Positive, Section
from bigchem.tasks import TRAINABLE_NAMES, task_id

CHUNK = 200
"""Records handed to a worker at a time."""


class TokenizerConfig(Section):
    """Where the vocabulary comes from."""

    t5: str | None = None
    """Folder of T5's own tokenizer, to which the chemistry tokens are added. None: trained from the corpus."""
    vocab_size: Annotated[int, Field(ge=300)] = 512
    """Embedding rows of a trained vocabulary."""
    smiles: Smiles = "pieces"
    """How SMILES are split: by the vocabulary alone (pieces), or at their atoms first (atoms)."""

    def make(self, texts: Iterable[str]) -> Tokenizer:
        """T5's, or one trained on the texts, which are read only for that."""
        if self.t5 is not None:
            return Tokenizer.from_t5(self.t5, self.smiles)
        return Tokenizer.train(texts, self.vocab_size, self.smiles)


class BuildConfig(Section):
    """A data recipe: which sources go to which split, and how they are tokenised."""

    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    """One table per source."""
    root: str = "."
    """Folder that the paths start from; itself relative to the recipe's folder."""
    limit: Positive | None = None
    """Read only the first records of every source: a quick look at a large corpus."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    shard_rows: Positive = 50000
    """Rows of a shard."""
    max_rejected: Fraction = 0.05
    """A source with a larger share of unreadable records stops the build."""
    keep_out: bool = True
    """Leave out training rows whose molecule is in a valid or test row of any task."""


@dataclass(frozen=True)
class Parsed:
    """A row with the identity of its molecule (see leakage.identity)."""

    row: Row
    identity: str | None


@dataclass(frozen=True)
class Rejected:
    """A record that is no row, and why."""

    file: str
    line: int
    reason: str


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> BuildConfig:
    """Reads a data recipe. Its `root` is relative to its own folder; one given by an override, to where we are."""
    config = strict.load(BuildConfig, path, overrides)
    here = any(override.startswith("root=") for override in overrides)
    root = (Path() if here else path.parent) / Path(config.root).expanduser()

    def resolve(name: str | None) -> str | None:
        return None if name is None else str((root / Path(name).expanduser()).resolve())

    for number, source in enumerate(config.sources):
        where = f"{path}: sources.{number}"
        chosen = reader(source.format, where)
        for task in source.tasks:
            task_id(task, where)
            if task not in chosen.tasks:
                raise UserError(
                    f"format '{source.format}' gives no rows for task '{task}'",
                    where,
                    f"it gives {' '.join(chosen.tasks)}",
                )
    sources = tuple(
        s.model_copy(update={"path": resolve(s.path), "target_path": resolve(s.target_path)}) for s in config.sources
    )
    tokenizer = config.tokenizer.model_copy(update={"t5": resolve(config.tokenizer.t5)})
    return config.model_copy(update={"sources": sources, "tokenizer": tokenizer, "root": str(root.resolve())})


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

    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    report: dict[str, object] = {}
    rows = _parse_all(config, partial, report, progress, workers or os.cpu_count() or 1)
    rows = _without_repeats(rows, report)
    if config.keep_out:
        rows = _without_leaks(rows, report)
    if not rows.get("train"):
        raise UserError("the corpus is empty: no training rows", str(out), "give a source with split = 'train'")
    tokenizer = _tokenizer(config.tokenizer, rows, progress)
    tokenizer.save(partial / "tokenizer")
    shards = _write_shards(rows, tokenizer, partial, config.shard_rows, progress)
    index = Index(tokenizer.fingerprint, shards, recipe, report)
    strict.write_atomically(partial / "index.json", index.to_json())
    if out.exists():
        shutil.rmtree(out)
    partial.replace(out)
    return index


def recipe_hash(config: BuildConfig) -> str:
    """Hash of a recipe and of the size and time of every file it names."""
    digest = hashlib.sha256(config.model_dump_json().encode())
    for source in config.sources:
        for name in (source.path, source.target_path):
            if name is not None and Path(name).is_file():
                stat = Path(name).stat()
                digest.update(f"{name}/{stat.st_size}/{stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


Rows = dict[str, dict[str, list[Parsed]]]
"""Rows by split and task."""


def _parse_all(config: BuildConfig, partial: Path, report: dict[str, object], progress: Progress, workers: int) -> Rows:
    rows: Rows = {}
    counts = []
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(workers, mp_context=spawn) as pool,
        (partial / "rejected.jsonl").open("w", encoding="utf-8") as rejected_file,
    ):
        for source in config.sources:
            name = f"{source.format} {Path(source.path).name if source.path else ''}".strip()
            count: Counter[str] = Counter()
            first: Rejected | None = None
            chunks = _chunks(source, config.limit)
            with progress.bar(f"reading {name}", None) as bar:
                for parsed in _map_bounded(pool, chunks, source, 4 * workers):
                    for found in parsed:
                        if isinstance(found, Rejected):
                            count["rejected"] += 1
                            first = first or found
                            rejected_file.write(json.dumps(vars(found), ensure_ascii=False) + "\n")
                        else:
                            count["rows"] += 1
                            rows.setdefault(source.split, {}).setdefault(found.row.task, []).append(found)
                    bar.advance(len(parsed))
            counts.append({"source": name, "split": source.split, **count})
            _check_rejected(source, name, count, config.max_rejected, first)
    report["sources"] = counts
    return rows


def _check_rejected(source: SourceConfig, name: str, count: Counter[str], limit: float, first: Rejected | None) -> None:
    where = source.path or name
    why = "the file is empty" if first is None else f"the first: line {first.line}: {first.reason}"
    if not count["rows"]:
        raise UserError(
            f"not one readable record ({count['rejected']} rejected); {why}", where, "is it of this format?"
        )
    share = count["rejected"] / count.total()
    if share > limit:
        raise UserError(
            f"{count['rejected']} of {count.total()} records are unreadable ({share:.1%}); {why}",
            where,
            f"mend them, or allow more by max_rejected = {math.ceil(100 * share) / 100}",
        )


def _chunks(source: SourceConfig, limit: int | None) -> Iterator[list[Record]]:
    limits = [n for n in (source.limit, limit) if n is not None]
    records = islice(reader(source.format).records(source), min(limits, default=None))
    while chunk := list(islice(records, CHUNK)):
        yield chunk


def _map_bounded(
    pool: ProcessPoolExecutor, chunks: Iterator[list[Record]], source: SourceConfig, ahead: int
) -> Iterator[list[Parsed | Rejected]]:
    """pool.map that reads at most `ahead` chunks before they are needed: sources may be larger than memory."""
    waiting = []
    for chunk in chunks:
        waiting.append(pool.submit(_parse_chunk, chunk, source))
        if len(waiting) >= ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


def _parse_chunk(chunk: list[Record], source: SourceConfig) -> list[Parsed | Rejected]:
    parse = reader(source.format).rows
    found: list[Parsed | Rejected] = []
    for record in chunk:
        try:
            rows = parse(record, source)
        except RowError as error:
            found.append(Rejected(record.file, record.line, str(error)))
            continue
        identities = {r.molecule: identity(r.molecule) for r in rows if r.molecule is not None}
        found.extend(Parsed(row, identities.get(row.molecule or "")) for row in rows)
    return found


def _without_repeats(rows: Rows, report: dict[str, object]) -> Rows:
    """Drops rows that are equal to an earlier one of the same split and task."""
    dropped: Counter[str] = Counter()
    kept: Rows = {}
    for split, tasks in rows.items():
        for task, listed in tasks.items():
            unique = {parsed.row.key: parsed for parsed in reversed(listed)}
            kept.setdefault(split, {})[task] = list(reversed(unique.values()))
            if len(unique) < len(listed):
                dropped[f"{split}/{task}"] = len(listed) - len(unique)
    report["repeats"] = dict(dropped)
    return kept


def _without_leaks(rows: Rows, report: dict[str, object]) -> Rows:
    """Drops training rows about a molecule that a valid or test row of any task is about."""
    held_out = {
        f"{split}/{task}": {p.identity for p in listed if p.identity is not None}
        for split, tasks in rows.items()
        if split != "train"
        for task, listed in tasks.items()
    }
    kept, leaked = drop_leaked(
        {task: [p.identity for p in listed] for task, listed in rows.get("train", {}).items()}, held_out
    )
    report["leaked"] = leaked
    train = {task: [rows["train"][task][i] for i in chosen] for task, chosen in kept.items() if chosen}
    return {**rows, "train": train}


def _tokenizer(config: TokenizerConfig, rows: Rows, progress: Progress) -> Tokenizer:
    if config.t5 is not None:
        return Tokenizer.from_t5(Path(config.t5))
    progress.say(f"training a tokenizer of {config.vocab_size} pieces")
    listed = (p.row for task in TRAINABLE_NAMES for p in rows["train"].get(task, []))
    return Tokenizer.train(
        (text for row in listed for text in (prompted(row.task, row.source), row.target)), config.vocab_size
    )


def _write_shards(
    rows: Rows, tokenizer: Tokenizer, partial: Path, shard_rows: int, progress: Progress
) -> dict[str, dict[str, list[Shard]]]:
    shards: dict[str, dict[str, list[Shard]]] = {}
    total = sum(len(listed) for tasks in rows.values() for listed in tasks.values())
    with progress.bar("writing shards", total) as bar:
        for split in SPLITS:
            for task in TRAINABLE_NAMES:
                listed = rows.get(split, {}).get(task, [])
                if not listed:
                    continue
                (partial / split).mkdir(exist_ok=True)
                writer = ShardWriter(partial, split, task, shard_rows)
                for start in range(0, len(listed), 5 * CHUNK):
                    batch = [p.row for p in listed[start : start + 5 * CHUNK]]
                    sources = tokenizer.encode_batch([prompted(r.task, r.source) for r in batch])
                    targets = tokenizer.encode_batch([r.target for r in batch])
                    for row, source_ids, target_ids in zip(batch, sources, targets, strict=True):
                        writer.add(row.key, row.source, row.target, source_ids, target_ids)
                    bar.advance(len(batch))
                shards.setdefault(split, {})[task] = writer.close()
    return shards
