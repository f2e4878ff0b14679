"""What a tokenizer does to a corpus: texts that do not round-trip, unknown tokens, lengths.

A corpus is a built data folder, a recipe (its sources are read, nothing is written) or a plain file of lines.
Duplicates are counted too, so memory does not grow with the corpus, unless a vocabulary is trained on it. A recipe's
rows are those before the build drops duplicates and leaks.
"""

import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from bigchem.base.errors import UserError
from bigchem.base.installed import resources
from bigchem.base.printable import markup
from bigchem.base.progress import Progress, tables
from bigchem.data.build.parse import CHUNK, chunked
from bigchem.data.build.recipe import BuildConfig, load_recipe
from bigchem.data.build.select import as_seen, sentinels
from bigchem.data.build.splits import may_train, rows_by_split
from bigchem.data.build.workers import cores, in_order, pool
from bigchem.data.reading.lines import open_text
from bigchem.data.sources.base import Record, Row, RowError, SourceConfig
from bigchem.data.sources.sides import is_unicode
from bigchem.data.storage.index import SPLITS
from bigchem.data.storage.remote import is_url
from bigchem.data.storage.shards import Data
from bigchem.data.text.tally import Limits, Side, Tally, tally
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.tasks import Tasks, shipped

LINES = (".txt", ".smi", ".txt.gz", ".smi.gz")
"""Plain files: one text per line; in .smi, the part before the first white space."""


def audit(
    path: str,
    progress: Progress,
    limits: Limits,
    *,
    tokenizer: Path | None = None,
    overrides: tuple[str, ...] = (),
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """Figures of every split, task and side of a corpus, in the order of SPLITS and of the corpus' tasks.

    tokenizer: a folder whose tokenizer.json is used unchanged. None: the data folder's own, or the recipe's, which is
    trained here, if need be, on the training rows, leaks included.
    UserError if the corpus is none of the three kinds, or if a plain file comes without a tokenizer.
    """
    workers = workers or cores()
    found: dict[Side, Tally] = {}
    rejected = 0
    with tempfile.TemporaryDirectory() as scratch:
        jobs, folder, tasks = _corpus(path, tokenizer, overrides, Path(scratch))
        Tokenizer.load(folder)  # so that an error in it is raised once, before workers start
        with (
            pool(workers, path, _start, folder, limits, tasks) as processes,
            progress.bar(f"auditing {path}", None) as bar,
        ):
            for tallies, refused in in_order(processes, _examine, ((job,) for job in jobs), 4 * workers):
                rejected += refused
                for side, counted in tallies.items():
                    found.setdefault(side, Tally()).add(counted, limits.examples)
                    bar.advance(counted.lengths.total())
    if rejected:
        progress.say(f"{path}: {rejected} unreadable records, skipped as in a build")
    if not found:
        raise UserError("contains no text", path, "is it the right file?")
    names = (*tasks, "")
    order = sorted(found, key=lambda side: ((*SPLITS, "").index(side.split), names.index(side.task), side.side))
    return [{"data": path, **side._asdict(), "limit": limits.of(side), **found[side].report()} for side in order]


class _Records(NamedTuple):
    """Records of a recipe's source; a worker makes the rows."""

    source: SourceConfig
    records: list[Record]


class _Rows(NamedTuple):
    """Rows of a data folder."""

    split: str
    rows: list[Row]


class _Lines(NamedTuple):
    """Lines of a plain file."""

    lines: list[str]


_Job = _Records | _Rows | _Lines


def is_recipe(path: str) -> bool:
    """Whether a path is audited as a recipe, by its own file or by a shipped one's name."""
    return not (path.endswith(LINES) or is_url(path) or Path(path).is_dir())


def _corpus(
    path: str, tokenizer: Path | None, overrides: tuple[str, ...], scratch: Path
) -> tuple[Iterable[_Job], Path, Tasks]:
    """The jobs for a corpus, the folder of its tokenizer, and its tasks."""
    if path.endswith(LINES):
        if tokenizer is None:
            raise UserError("a plain file has no tokenizer of its own", path, "add --tokenizer FOLDER")
        return _line_jobs(path), tokenizer, shipped()
    if is_url(path) or (Path(path) / "index.json").is_file():
        data = Data(path)
        return _data_jobs(data), tokenizer or data.tokenizer_dir, data.tasks
    if Path(path).is_dir():
        raise UserError("no data here: index.json is missing", path, "give a data folder, a recipe or a file of lines")
    if Path(path).is_file() and not path.endswith(".toml"):
        raise UserError(
            "cannot be audited", path, f"give a data folder, a recipe (.toml), or lines ({' '.join(LINES)})"
        )
    config = load_recipe(resources.find("recipes", path, ".toml"), overrides)
    if tokenizer is None:
        _as_built(config).save(scratch)
    return _recipe_jobs(config), tokenizer or scratch, config.known_tasks


def _data_jobs(data: Data) -> Iterator[_Job]:
    for split, tasks in data.index.shards.items():
        for task in tasks:
            rows = data.split(split, task)
            for start in range(0, len(rows), CHUNK):
                texts = (rows.text(row)[1:] for row in range(start, min(start + CHUNK, len(rows))))
                yield _Rows(split, [Row(task, source, target) for source, target in texts])


def _recipe_jobs(config: BuildConfig) -> Iterator[_Records]:
    for source in config.sources:
        for records in chunked(source, config):
            yield _Records(source, records)


def _line_jobs(path: str) -> Iterator[_Job]:
    whole = (line for line in open_text(path, limit=sys.maxsize - 2) if line.strip())
    lines = (line.split()[0] if ".smi" in Path(path).suffixes else line for line in whole)
    while chunk := list(islice(lines, CHUNK)):
        yield _Lines(chunk)


def _as_built(config: BuildConfig) -> Tokenizer:
    """The recipe's tokenizer. Training differs from the build's only in that rows which leak take part."""
    if not config.tokenizer.trained:
        return config.tokenizer.make(())
    tasks, keys = config.known_tasks, dict[str, set[str]]()
    texts: list[str] = []
    train = tuple(filter(may_train, config.sources))
    for job in _recipe_jobs(config.model_copy(update={"sources": train})):
        for row, split in _parsed(job, tasks)[0]:
            if split == "train" and row.key not in keys.setdefault(row.task, set()):
                keys[row.task].add(row.key)
                texts += as_seen(tasks[row.task], row.source, row.target, dict(row.fields))
    return config.tokenizer.make(texts, sentinels(keys))


def _texts(job: _Job, tasks: Tasks) -> tuple[list[tuple[Side, str]], int]:
    """The texts of a job, and how many of its records cannot be read. Span tasks have no target."""
    if isinstance(job, _Lines):
        lines = [line for line in job.lines if is_unicode(line)]
        return [(Side("", "", "line"), line) for line in lines], len(job.lines) - len(lines)
    rows, rejected = ([(row, job.split) for row in job.rows], 0) if isinstance(job, _Rows) else _parsed(job, tasks)
    texts = []
    for row, split in rows:
        texts.append((Side(split, row.task, "source"), row.source))
        if not tasks[row.task].spans:
            texts.append((Side(split, row.task, "target"), row.target))
    return texts, rejected


def _parsed(job: _Records, tasks: Tasks) -> tuple[list[tuple[Row, str]], int]:
    rows, rejected = [], 0
    for record in job.records:
        try:
            rows += rows_by_split(record, job.source, tasks)
        except RowError:
            rejected += 1
    return rows, rejected


def _prompt(tasks: Tasks, side: Side) -> str:
    """The text before a side's texts, which its figures include; "" where that depends on the row."""
    return tasks[side.task].only_prompt or "" if side.side == "source" else ""


_worker: tuple[Tokenizer, Limits, Tasks]
"""The arguments with which a worker process was started."""


def _start(folder: Path, limits: Limits, tasks: Tasks) -> None:
    global _worker
    _worker = Tokenizer.load(folder), limits, tasks


def _examine(job: _Job) -> tuple[dict[Side, Tally], int]:
    tokenizer, limits, tasks = _worker
    texts, rejected = _texts(job, tasks)
    by_side: dict[Side, list[str]] = {}
    for side, text in texts:
        by_side.setdefault(side, []).append(text)
    return {
        side: tally(tokenizer, listed, _prompt(tasks, side), limits.of(side), limits.examples)
        for side, listed in by_side.items()
    }, rejected


SHOWN = 100
"""Characters shown of a long text."""


def print_audit(found: list[dict[str, Any]]) -> None:
    """Prints the figures of bigchem.data.inspect.audit.audit."""
    several = len({row["data"] for row in found}) > 1
    table = Table(title="all rows, duplicates included; lengths with prompt and end token", title_justify="left")
    for name in (["data"] if several else []) + ["split", "task", "side"]:
        table.add_column(name)
    for name in ("texts", "exact", "lost", "with unk", "unk/token", "token/char", "token/text"):
        table.add_column(name, justify="right")
    for name in ("p50", "p90", "p99", "max", "too long"):
        table.add_column(name, justify="right")
    for row in found:
        table.add_row(*([markup(row["data"])] if several else []), *_cells(row))
    console = tables()
    console.print(table)
    for row in found:
        where = " ".join(row[name] for name in ("data", "split", "task", "side") if row[name])
        for lost in row["lost"]:
            console.print(markup(f"lost: {where}: at {lost['at']}: {lost['expected']!r} became {lost['found']!r}"))
        for longest in row["longest"]:
            text = longest["text"]
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"
            console.print(markup(f"longest: {where}: {longest['tokens']} tokens: {shown!r}"))


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["split"],
        row["task"],
        row["side"],
        f"{row['texts']:,}",
        share_exact(row["texts"], row["not_exact"]),
        f"{row['not_exact']:,}",
        f"{row['with_unknown']:,}",
        f"{row['unknown_rate']:.3%}",
        f"{row['tokens_per_character']:.3f}",
        f"{row['tokens_per_text']:.1f}",
        *(f"{row[name]:,}" for name in ("p50", "p90", "p99", "max")),
        f"{row['over']:,} > {row['limit']}" if row["over"] else "0",
    ]


def share_exact(texts: int, not_exact: int) -> str:
    """A percentage that is 100 only if all are exact."""
    share = 100 * (texts - not_exact) / texts
    return "100 %" if not not_exact else f"{min(share, 99.99):.2f} %"
