"""First part of a build: from sources to parsed rows, one file per chunk of records.

A chunk file is written completely or not at all, so a killed build resumes after the last one. Its content depends only
on the recipe, not on the number of workers or interruptions.
"""

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bigchem.base.atomic import write_atomically
from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.build.chunks import Chunk, Rejected, chunk_path, read_chunk, write_chunk
from bigchem.data.build.leakage import Identities, Identity, identities
from bigchem.data.build.recipe import BuildConfig
from bigchem.data.build.splits import (
    UnknownSplitError,
    described,
    may_train,
    refuse_empty,
    refuse_unknown,
    rows_by_split,
)
from bigchem.data.build.workers import in_order, naming_the_current_record, noting_the_current_record
from bigchem.data.reading.paths import listed
from bigchem.data.sources import reader
from bigchem.data.sources.base import Record, Row, RowError, SourceConfig
from bigchem.tasks import Tasks

CHUNK = 1000
"""Records per chunk: about a second's work, which is what a kill costs."""

_REASONS = 12
"""Maximum reasons for rejection in a report."""
_QUOTED = re.compile(r":? '.*'( \(pip.*)?$|:? there are: .*", re.DOTALL)
"""The part of a reason that quotes the record."""


class Part(NamedTuple):
    """One of several equal shares of a build's work: item n belongs to part n % of."""

    number: int
    of: int

    def file(self, folder: Path) -> Path:
        """The file that marks the part as parsed."""
        return folder / f"part-{self.number}-of-{self.of}.json"


class _Dealt:
    """The jobs that belong to a part. seen: number of all jobs so far."""

    def __init__(self, jobs: Iterable[tuple[Any, ...]], part: Part) -> None:
        self._jobs, self._part, self.seen = jobs, part, 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for job in self._jobs:
            self.seen += 1
            if (self.seen - 1) % self._part.of == self._part.number:
                yield job


def check_sources(config: BuildConfig) -> None:
    """UserError, before hours of parsing, if a source is missing or lacks its columns, or if none is for training."""
    if not any(map(may_train, config.sources)):
        raise UserError("no training rows", "sources", "give a source with split = 'train'")
    for source in config.sources:
        next(iter(reader(source.format).records(source, config.known_tasks)), None)


def parse_sources(
    config: BuildConfig, folder: Path, progress: Progress, pool: ProcessPoolExecutor, workers: int
) -> tuple[list[Chunk], list[dict[str, Any]]]:
    """Parses all sources into chunk files under `folder`. Returns the chunks in order, and counts for each source.

    UserError for a source that is unreadable or has too many unreadable records.
    """
    chunks: list[Chunk] = []
    report = []
    for number, source in enumerate(config.sources):
        own: list[Chunk] = []
        with progress.bar(f"reading {_name(source)}", None) as bar, naming_the_current_record() as notes:
            for chunk in in_order(pool, partial(_parse_chunk, notes), _jobs(config, number, folder), 4 * workers):
                own.append(chunk)
                bar.advance(chunk.records)
        report.append(_counts(source, own, config.max_rejected))
        chunks += own
    return chunks, report


def parse_part(
    config: BuildConfig, folder: Path, progress: Progress, pool: ProcessPoolExecutor, workers: int, part: Part
) -> None:
    """Parses one part of all sources' chunks. All are read, which is fast compared to parsing. At the end the part's
    file records how many chunks each source has."""
    counts = []
    for number, source in enumerate(config.sources):
        dealt = _Dealt(_jobs(config, number, folder), part)
        label = f"reading {_name(source)}, part {part.number + 1} of {part.of}"
        with progress.bar(label, None) as bar, naming_the_current_record() as notes:
            for chunk in in_order(pool, partial(_parse_chunk, notes), dealt, 4 * workers):
                bar.advance(chunk.records)
        counts.append(dealt.seen)
    write_atomically(part.file(folder), json.dumps(counts))


def gathered(config: BuildConfig, folder: Path) -> tuple[list[Chunk], list[dict[str, Any]]]:
    """The result of `parse_sources`, once all parts are parsed."""
    file = next(folder.glob("part-*.json"))
    chunks: list[Chunk] = []
    report = []
    for number, count in enumerate(json.loads(file.read_text(encoding="utf-8"))):
        source = config.sources[number]
        own = [read_chunk(chunk_path(folder, number, n), {}) for n in range(count)]
        report.append(_counts(source, own, config.max_rejected))
        chunks += own
    return chunks, report


def chunked(source: SourceConfig, config: BuildConfig) -> Iterator[list[Record]]:
    """The records of one of a recipe's sources, up to its own limit and the recipe's, CHUNK at a time."""
    limits = [n for n in (source.limit, config.limit) if n is not None]
    records = islice(reader(source.format).records(source, config.known_tasks), min(limits, default=None))
    while chunk := list(islice(records, CHUNK)):
        yield chunk


def _name(source: SourceConfig) -> str:
    names = listed(source.path)
    file = "/".join(Path(names[0]).parts[-2:]) if names else source.hub or ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{source.format} {file}{more}".strip()


def _jobs(config: BuildConfig, number: int, folder: Path) -> Iterator[tuple[Any, ...]]:
    """The arguments of `_parse_chunk` for every chunk of a source."""
    source = config.sources[number]
    for n, records in enumerate(chunked(source, config)):
        yield records, source, config.known_tasks, chunk_path(folder, number, n)


def _counts(source: SourceConfig, chunks: list[Chunk], max_rejected: float) -> dict[str, Any]:
    """A source's entry in the report; UserError if it has no rows or too many unreadable records."""
    splits = sum((chunk.splits for chunk in chunks), Counter[str]())
    reasons = Counter(_QUOTED.sub("", rejected.reason).strip() for chunk in chunks for rejected in chunk.rejected)
    count = {
        "records": sum(chunk.records for chunk in chunks),
        "rejected": sum(len(chunk.rejected) for chunk in chunks),
        "rows": sum(chunk.rows for chunk in chunks),
        "splits": dict(splits),
        "split_names": dict(sum((chunk.split_names for chunk in chunks), Counter())),
        "repairs": dict(sum((chunk.repairs for chunk in chunks), Counter())),
        "reasons": dict(reasons.most_common(_REASONS)),
        "without_inchi": sum(chunk.without_inchi for chunk in chunks),
        "left_out": sum(chunk.left_out for chunk in chunks),
    }
    first = next((rejected for chunk in chunks for rejected in chunk.rejected), None)
    where = " ".join(listed(source.path)) or _name(source)
    _check_counts(where, count, max_rejected, first)
    refuse_empty(splits, source, where)
    about = {"hub": source.hub, "license": source.license}
    return {"source": _name(source), "split": described(source), **{k: v for k, v in about.items() if v}, **count}


def _parse_chunk(notes: Path, records: list[Record], source: SourceConfig, tasks: Tasks, path: Path) -> Chunk:
    if path.is_file():
        return read_chunk(path, {})
    begun = time.perf_counter()
    rows: list[Row] = []
    splits: list[str] = []
    unknown: Counter[str] = Counter()
    of: list[Record] = []
    rejected: list[Rejected] = []
    with noting_the_current_record(notes) as note:
        for record in records:
            note(record.file, record.line)
            try:
                for row, split in rows_by_split(record, source, tasks):
                    rows.append(row)
                    splits.append(split)
            except UnknownSplitError as error:
                unknown[error.value] += 1
            except RowError as error:
                rejected.append(Rejected(record.file, record.line, str(error)))
            of += [record] * (len(rows) - len(of))
        refuse_unknown(unknown, source, records)
        parsed = time.perf_counter()
        found: list[tuple[Identity, ...]] = []
        for row, record in zip(rows, of, strict=True):
            note(record.file, record.line)
            found.append(identities(row.molecule) if row.molecule is not None else ())
    about = Identities.of(found)
    identified = time.perf_counter()
    facts = {
        "records": len(records),
        "splits": Counter(splits),
        "split_names": _other_names(rows, splits) if source.split_column is not None else {},
        "repairs": Counter(repair for row in rows for repair in row.repairs),
        "without_inchi": sum(not all(identity.has_inchi for identity in row) for row in found),
        "rejected": [asdict(r) for r in rejected],
        "left_out": len(records) - len(rejected) - len({id(record) for record in of}),
    }
    write_chunk(path, rows, splits, tasks, about, facts)
    seconds = {"parsing": parsed - begun, "InChI": identified - parsed, "writing": time.perf_counter() - identified}
    return read_chunk(path, seconds)


def _other_names(rows: list[Row], splits: list[str]) -> Counter[str]:
    """Rows whose file names their split in another way."""
    return Counter(f"{row.group} is {split}" for row, split in zip(rows, splits, strict=True) if row.group != split)


def _check_counts(where: str, count: dict[str, Any], limit: float, first: Rejected | None) -> None:
    records, rejected = count["records"], count["rejected"]
    if not count["rows"]:
        why = "the file is empty" if not records else f"none of {records} records has a requested task"
        if first is not None:
            why = f"no record could be read ({rejected} rejected); the first: {_place(first, where)}: {first.reason}"
        raise UserError(f"no rows: {why}", where, "is it of this format, and are `tasks`, `task_names`, `where` right?")
    share = rejected / records
    if first is not None and share > limit:
        what = f"{rejected} of {records} records are unreadable ({share:.1%})"
        raise UserError(
            f"{what}; the first: {_place(first, where)}: {first.reason}",
            where,
            f"fix them, or allow more with max_rejected = {math.ceil(100 * share) / 100}",
        )


def _place(rejected: Rejected, where: str) -> str:
    """Its line, with the file if the source has several."""
    line = f"line {rejected.line}"
    return line if rejected.file == where else f"{rejected.file}: {line}"
