"""Scores of models trained elsewhere: a CSV, or a JSON list of objects, with columns among COLUMNS.

A row states a metric, or names a file of predictions, which the protocol scores.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from bigchem.base import json_file
from bigchem.base.errors import UserError, nearest, unknown
from bigchem.base.printable import printable
from bigchem.base.progress import Progress
from bigchem.base.toml import Section, validate
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import Regime, Run, Score, scale_of
from bigchem.tasks import Tasks

MAIN_COLUMNS = ("parameters", "task", "regime", "metric", "value", "low", "high", "seed", "run")
"""The usual columns of a table."""
COLUMNS = (*MAIN_COLUMNS, "n", "mixture", "definition", "higher_is_better", "predictions")
"""All allowed columns, in any order."""
RESAMPLES = 1000
"""Bootstrap resamples of the examples, for the intervals of predictions."""
MAX_BYTES = 1 << 26
"""Of a table: about half a million rows."""
Name = Annotated[str, Field(max_length=300), AfterValidator(printable)]
Text = Annotated[str, Field(max_length=10_000), AfterValidator(printable)]
"""Texts that tables and pages show."""
Number = Annotated[float, Field(ge=-1e210, le=1e210, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]


def _whole(given: object) -> object:
    """Converts 2.5e8, as spreadsheets write it, to an int; anything else is returned unchanged."""
    if not isinstance(given, str | float) or str(given).isdigit():
        return given
    try:
        number = float(given)
    except ValueError:
        return given
    return int(number) if number.is_integer() else given


Parameters = Annotated[int, BeforeValidator(_whole), Field(gt=0, le=10**18)]


class _Row(Section):
    parameters: Parameters
    task: Name
    regime: Regime | None = None
    mixture: Name | None = None
    metric: Name | None = None
    value: Number | None = None
    low: Number | None = None
    high: Number | None = None
    n: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=10**18)] | None = None
    seed: Seed = 0
    run: Name | None = None
    definition: Text | None = None
    higher_is_better: bool | None = None
    predictions: Annotated[str, Field(min_length=1, max_length=4000)] | None = None


def read_table(file: Path, progress: Progress, tasks: Tasks) -> list[Score]:
    """The scores of a table; predictions it names, relative to its folder, are scored. tasks: that it may name.
    UserError with the line."""
    runs: dict[tuple[Any, ...], Run] = {}
    scores: dict[tuple[int, str, str], Score] = {}
    for where, row in _csv_rows(file) if file.suffix == ".csv" else _json_rows(file):
        _check_task(row.task, tasks, f"{where}.task")
        run = _run(row, where, str(file), tasks)
        key = (run.name, run.parameters, run.regime, run.seed)
        if row.mixture is not None and row.task not in run.mixture:
            raise UserError(f"'{row.task}' is not in the mixture '{row.mixture}'", where)
        known = runs.setdefault(key, run)
        if known.mixture != run.mixture:
            what = f"the run '{run.name}' has two mixtures, {_tasks(known)} and {_tasks(run)}"
            raise UserError(what, where, "give each model its own 'run'")
        found = (
            [_stated(known, row, where)]
            if row.predictions is None
            else _predicted(known, row, where, file.parent / row.predictions, progress)
        )
        for score in found:
            if scores.setdefault((id(known), score.task, score.metric), score) is not score:
                what = f"{score.task} {score.metric} of the run '{known.name}' with seed {known.seed} is given twice"
                raise UserError(what, where, "give each model its own 'run' or 'seed'")
    if not scores:
        raise UserError("no scores", str(file))
    return list(scores.values())


def _check_task(name: str, tasks: Tasks, where: str) -> None:
    if name not in tasks.scored:
        hint = f"{nearest(name, list(tasks.scored))} Other tasks: --tasks FILE, with a table [tasks.NAME] for each"
        raise UserError(f"unknown task '{name}'", where, hint)


def _csv_rows(file: Path) -> Iterator[tuple[str, _Row]]:
    if file.stat().st_size > MAX_BYTES:
        raise UserError(f"larger than {MAX_BYTES:,} bytes: not a table of scores", str(file))
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            _check_columns(reader.fieldnames or (), f"{file}:1")
            for raw in reader:
                where = f"{file}:{reader.line_num}"
                if None in raw or None in raw.values():
                    raise UserError(f"not {len(reader.fieldnames or ())} fields, unlike the header", where)
                given = {key: text.strip() for key, text in raw.items() if text.strip()}
                yield where, validate(_Row, given, where, text=True)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"not a CSV file: {error}", str(file)) from None


def _check_columns(found: Sequence[str], where: str) -> None:
    for name in found:
        if name not in COLUMNS:
            unknown("column", name, list(COLUMNS), where)
    missing = [name for name in ("parameters", "task") if name not in found]
    if "regime" not in found and "mixture" not in found:
        missing.append("regime")
    if missing or len(set(found)) != len(found):
        what = f"no column '{missing[0]}'" if missing else "duplicate column"
        raise UserError(what, where, f"for example: {','.join(MAIN_COLUMNS)}")


def _json_rows(file: Path) -> Iterator[tuple[str, _Row]]:
    for number, row in enumerate(json_file.load(file, max_bytes=MAX_BYTES)):
        where = f"{file}[{number}]"
        if not isinstance(row, dict):
            raise UserError("not a JSON object", where, f"its keys are {', '.join(COLUMNS)}")
        yield where, validate(_Row, row, where)


def _run(row: _Row, where: str, source: str, known: Tasks) -> Run:
    if (row.regime is None) == (row.mixture is None):
        raise UserError("neither or both of 'regime' and 'mixture'", where, "together, alone, or the tasks: a+b")
    tasks = tuple(dict.fromkeys(row.mixture.split("+"))) if row.mixture is not None else ()
    for task in tasks:
        _check_task(task, known, f"{where}.mixture")
    regime: Regime = row.regime or ("together" if len(tasks) > 1 else "alone")
    name = row.run or f"{row.parameters}-{'+'.join(sorted(tasks)) or regime}"
    mixture = dict.fromkeys(tasks, 1 / max(1, len(tasks)))
    return Run(name, row.parameters, regime, row.seed, source, mixture=mixture, tasks=known)


def _tasks(run: Run) -> str:
    return "+".join(run.mixture) or "an unstated one"


def _stated(run: Run, row: _Row, where: str) -> Score:
    if row.metric is None:
        raise UserError("neither 'metric' nor 'predictions'", where)
    scale = scale_of(row.metric, row.higher_is_better, f"{where}.metric")
    estimate = estimate_of(row.value, row.low, row.high, where)
    return Score(run, row.task, row.metric, scale, estimate, row.definition or "", n=row.n)


def estimate_of(value: float | None, low: float | None, high: float | None, where: str) -> Estimate | None:
    """None for a metric that is n/a; UserError for half an interval or a reversed one."""
    if (low is None) != (high is None):
        raise UserError("one end of an interval without the other", where, "give 'low' and 'high', or neither")
    if low is not None and high is not None and low > high:
        raise UserError(f"'low' = {low} is above 'high' = {high}", where)
    return None if value is None else Estimate(value, low, high)


def _predicted(run: Run, row: _Row, where: str, file: Path, progress: Progress) -> list[Score]:
    from bigchem.evaluate.score import READING, score_file

    fields = ("metric", "value", "low", "high", "n", "definition", "higher_is_better")
    if stated := [name for name in fields if getattr(row, name) is not None]:
        raise UserError(f"'{stated[0]}' beside 'predictions'", where, "predictions are scored: remove it")
    if row.task in run.predictions:
        raise UserError(f"duplicate predictions of {row.task} for '{run.name}'", where)
    run.predictions[row.task] = str(file)
    with progress.bar(f"scoring {file.name}", 1) as bar:
        found = score_file(run.tasks[row.task], file, bootstrap=RESAMPLES, workers=len(os.sched_getaffinity(0)))
        bar.advance()
    scores = []
    for s in found:
        if s.definition != READING:
            scale, estimate = scale_of(s.metric, s.higher_is_better, where), estimate_of(s.value, s.low, s.high, where)
            scores.append(Score(run, row.task, s.metric, scale, estimate, s.definition, s.note, s.n))
    return scores
