"""A file of predictions -> its scores."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bigchem.errors import UserError
from bigchem.evaluate.molecules import parse
from bigchem.evaluate.protocol import Score, score_task
from bigchem.progress import Progress
from bigchem.tasks import TASKS, check_labelled

Predictions = tuple[list[str], list[str], list[list[str]]]

_COLUMNS = (("SMILES", "description", "source"), ("ground truth", "target"), ("output", "prediction"))
"""What a table's source, reference and prediction columns may be called: MolT5's names, then bigchem's."""
FORWARD_BEAMS = 5
"""Of the forward model's search, as `predict` has by default."""
_LOOKED_AT = 100
"""Texts that are parsed to see whether a file is of its task."""
_FORMATS = ".txt, .tsv (MolT5's table), .csv or .jsonl, each also .gz"


def score_file(
    task: str,
    path: str | Path,
    *,
    forward_model: Path | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    workers: int = 1,
) -> list[Score]:
    """Scores a file of predictions: predictions_of, then protocol.score_task.

    forward_model: a consolidated model's folder, for the round trip of retrosynthesis, by FORWARD_BEAMS beams.
    UserError with any other task.
    """
    if forward_model is not None:
        check_round_trip(task, path)
    sources, references, predictions = predictions_of(task, path)
    made = None if forward_model is None else _products(forward_model, [ranked[0] for ranked in predictions])
    return score_task(
        task, sources, references, predictions, products=made, bootstrap=bootstrap, seed=seed, workers=workers
    )


def predictions_of(task: str, path: str | Path) -> Predictions:
    """read_predictions of a file of this task. UserError where references have to be molecules and none is: a file of
    another task, most likely; or for no task."""
    check_labelled(task, "task")
    read = _, references, _ = read_predictions(path)
    first = list(filter(None, references))[:_LOOKED_AT]
    if TASKS[task].target_domain == "chemistry" and first and not any(map(parse, first)):
        what = f"no target is a molecule, of the first {len(first)}; the first is '{first[0][:40]}'"
        raise UserError(what, str(path), f"is this a file of {task}?")
    return read


def check_round_trip(task: str, path: str | Path) -> None:
    """UserError where a forward model would be of no use: before a run is consolidated for it."""
    if task != "retrosynthesis":
        raise UserError(f"goes with retrosynthesis, not with {task}", "--forward-model")
    predictions_of(task, path)


def _products(forward_model: Path, best: list[str]) -> list[str]:
    from bigchem.config import EvaluateConfig
    from bigchem.evaluate.round_trip import products

    return products(forward_model, best, EvaluateConfig(num_beams=FORWARD_BEAMS), None, Progress())


def read_predictions(path: str | Path) -> Predictions:
    """Sources, references and k-best predictions of a file.

    .txt, .tsv: MolT5's table: header `SMILES` or `description`, `ground truth`, `output`; tabs, never quotes. .csv: the
    same columns. .jsonl: {"source", "target", "predictions": [best, ...]} or "prediction". Each may be .gz.
    UserError with file and line for anything else.
    """
    file = Path(path)
    if not file.is_file():
        what = "a folder, not a file" if file.is_dir() else "no such file"
        raise UserError(what, str(file), f"give a file of predictions: {_FORMATS}")
    kind = (file.with_suffix("") if file.suffix == ".gz" else file).suffix
    if kind in (".txt", ".tsv"):
        rows = list(_table(file, _tab_separated(file)))
    elif kind == ".csv":
        rows = list(_table(file, _comma_separated(file)))
    elif kind == ".jsonl":
        rows = [_record(line, f"{file}:{number}") for number, line in _lines(file) if line.strip()]
    else:
        raise UserError(f"unknown kind of file '{kind}'", str(file), f"known: {_FORMATS}")
    if not rows:
        raise UserError("no predictions", str(file))
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def table(scores: list[Score]) -> Table:
    """The scores for a terminal, a section per task; a column for notes where there are any."""
    out = Table("task", "metric")
    for name in ("value", "95 % interval", "n"):
        out.add_column(name, justify="right")
    out.add_column("definition")
    noted = any(score.note for score in scores)
    if noted:
        out.add_column("note")
    for score, following in zip(scores, [*scores[1:], None], strict=True):
        value = "n/a" if score.value is None else f"{score.value:.4f}"
        interval = "" if score.low is None or score.high is None else f"{score.low:.4f} .. {score.high:.4f}"
        last = following is None or following.task != score.task
        out.add_row(
            score.task,
            score.metric,
            value,
            interval,
            str(score.n),
            score.definition,
            *([escape(score.note)] if noted else []),
            end_section=last,
        )
    return out


def to_json(scores: list[Score]) -> list[dict[str, Any]]:
    """The scores as JSON values, one object each, keys as in Score; n/a is null."""
    return [asdict(score) for score in scores]


Row = tuple[str, str, list[str]]


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends. They end at \\n only: captions hold what splitlines would cut at."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except FileNotFoundError:
        raise UserError("no such file", str(file), f"give a file of predictions: {_FORMATS}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8: {error.reason}", f"{file}:{number}", "write the file again, as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read: {error}", str(file), "damaged or cut? fetch or write it again") from None


def _tab_separated(file: Path) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("\t")) for number, line in _lines(file) if line)


def _comma_separated(file: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((line + "\n" for _, line in _lines(file)), strict=True)
    try:
        for fields in reader:
            if fields:
                yield reader.line_num, fields
    except csv.Error as error:
        raise UserError(f"not CSV: {error}", f"{file}:{reader.line_num}") from None


def _table(file: Path, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Row]:
    """Rows of a table whose first row names the columns."""
    _, header = next(rows, (1, []))
    places = [next((header.index(name) for name in names if name in header), None) for names in _COLUMNS]
    for names, place in zip(_COLUMNS, places, strict=True):
        if place is None:
            raise UserError(f"no column {' or '.join(map(repr, names))}", f"{file}:1", f"the header is {header}")
    source, target, output = (place for place in places if place is not None)
    for number, fields in rows:
        if len(fields) != len(header):
            raise UserError(
                f"{len(fields)} fields, the header has {len(header)}",
                f"{file}:{number}",
                "a text that holds the separator? write the file as .jsonl",
            )
        yield fields[source], fields[target], [fields[output]]


def _record(line: str, where: str) -> Row:
    hint = 'write {"source": "...", "target": "...", "predictions": ["best", ...]}'
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"not JSON: {error}", where, hint) from None
    if not isinstance(record, dict):
        raise UserError("not a JSON object", where, hint)
    source, target = record.get("source"), record.get("target")
    ranked = record.get("predictions", [record["prediction"]] if "prediction" in record else None)
    if not isinstance(source, str) or not isinstance(target, str):
        raise UserError("'source' and 'target' have to be strings", where, hint)
    if not isinstance(ranked, list) or not ranked or not all(isinstance(one, str) for one in ranked):
        raise UserError("'predictions' has to be a non-empty list of strings, or 'prediction' a string", where, hint)
    return source, target, ranked
