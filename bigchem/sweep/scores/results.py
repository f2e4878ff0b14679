"""Reads result files into one table of scores.

Two formats: `results.json`, written by `bigchem evaluate`, and score_table's, for models trained elsewhere. Scores that
are not comparable (different data, split, decoding, definition, mixture or budget) are refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from bigchem.base import json_file
from bigchem.base.errors import UserError
from bigchem.base.json_file import Count
from bigchem.base.progress import Progress
from bigchem.base.toml import Section, quoted, validate
from bigchem.sweep.scores import budgets
from bigchem.sweep.scores.axes import FLOPS, axes_note, by_setting, choose
from bigchem.sweep.scores.comparable import axis_problems, problems
from bigchem.sweep.scores.mixtures import apart_note, set_apart, without_mixtures
from bigchem.sweep.scores.records import REGIMES, Results, Run, Score, Training, scale_of, tasks_of
from bigchem.sweep.scores.score_table import (
    MAX_BYTES,
    Name,
    Number,
    Parameters,
    Seed,
    Text,
    estimate_of,
    read_table,
)
from bigchem.tasks import Tasks, shipped

INPUTS_HINT = "give results.json, a score table (.csv, .json), or a folder of runs"


class _Part(Section):
    """Unknown keys are allowed, as newer versions may add some; types are not converted."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Model(_Part):
    preset: Name
    parameters: Parameters
    sha256: Name
    non_embedding_parameters: Count | None = None


class _SweepPoint(_Part):
    axes: Annotated[dict[str, Any], Field(max_length=100)] = Field(default_factory=dict)
    per_size: list[Name] = Field(default_factory=list)
    selected: Annotated[dict[Name, Any], Field(max_length=100)] = Field(default_factory=dict)
    alone: Name | None = None


class _Training(_Part):
    steps: Count
    steps_done: Count | None
    early: Text | None
    global_tokens: Count
    examples: dict[Name, Count] | None
    tokens: dict[Name, Count] | None
    flops: Number | None
    lr: Number
    schedule: Annotated[dict[Name, Any], Field(max_length=100)]
    optimizer: Name
    dropout: Number
    init_from: Text | None
    sweep: _SweepPoint | None
    tokenizer: Name | None = None

    def record(self) -> Training:
        """The same without the file's names and kinds."""
        point = self.sweep or _SweepPoint()
        return Training(
            **self.model_dump(include=set(Training.__dataclass_fields__) - {"schedule"}),
            schedule=", ".join(f"{key} {quoted(value)}" for key, value in self.schedule.items()),
            pretrained=self.init_from is not None,
            axes=point.axes,
            per_size=tuple(point.per_size),
            selected=tuple(point.selected),
            alone=point.alone,
        )


class _Metric(_Part):
    task: Name
    metric: Name
    value: Number | None
    low: Number | None
    high: Number | None
    definition: Text
    note: Text = ""
    n: int | None = None
    higher_is_better: bool | None = None


class _File(_Part):
    version: Literal[1] = Field(alias="schema")
    run: Name
    model: _Model
    mixture: Annotated[dict[str, Annotated[float, Field(ge=0, le=1e9)]], Field(min_length=1)]
    seed: Seed
    step: Count
    tokens: Count
    data_fingerprint: Name
    split: Name
    decoding: Annotated[dict[Name, Any], Field(max_length=100)]
    protocol: Text
    training: _Training | None = None
    metrics: list[_Metric]
    tasks: dict[str, Any] | None = None


def load(
    paths: Iterable[str | Path],
    allow_mixed: bool = False,
    progress: Progress | None = None,
    tasks: Tasks | None = None,
    *,
    allow_unequal_budgets: bool = False,
    at: Sequence[str] = (),
    shown: Mapping[Path, Path] | None = None,
) -> Results:
    """Reads result files, score tables and folders (every results.json under them).

    tasks: of score tables; default: those that ship. UserError for files that are missing or malformed and scores that
    are not comparable; allow_mixed turns the last into notes, and allow_unequal_budgets those of models trained with
    other budgets into a caveat. at: AXIS=VALUE of the runs that the claim is about, see axes.choose. shown: what a
    folder stands for, such as an archive.
    """
    scores: list[Score] = []
    paths = list(paths)
    for file in find(paths):
        table = file.suffix == ".csv" or isinstance(json_file.load(file, max_bytes=MAX_BYTES, hint=INPUTS_HINT), list)
        known = tasks or shipped()
        scores += (
            read_table(file, progress or Progress(quiet=True), known)
            if table
            else read_json(file, _shown(file, shown or {}))
        )
    scores, notes = _newest_steps(scores)
    scores, untrained = _trained_tasks(scores)
    if not scores:
        raise UserError("no scores of tasks that their models were trained on", ", ".join(map(str, paths)), INPUTS_HINT)
    _refuse_two_directions(scores)
    scores, by_axis = choose(scores, at)
    scores, apart = set_apart(scores)
    by_axis = without_mixtures(by_axis, apart)
    found = [*problems(scores, apart), *axis_problems(by_axis)]
    if found and not allow_mixed:
        what, where, hint = found[0]
        raise UserError(what, where, f"{hint}, or --allow-mixed")
    notes += [*untrained, *axes_note(by_axis, scores), *apart_note(scores, apart)]
    notes += [*(f"Mixed on request: {what}." for what, _, _ in found)]
    every = _runs([*scores, *apart])
    unstamped = [run for run in every if run.fingerprint is None]
    if unstamped:
        names = ", ".join(sorted({run.name for run in unstamped}))
        notes.append(
            f"From score tables, which carry no data fingerprint, so nothing proves that they are comparable: {names}."
        )
    caveats = budgets.check(every, allow_unequal=allow_unequal_budgets)
    notes += _axis_caveats(by_axis, allow_unequal_budgets)
    runs = _runs(scores)
    notes += budgets.notes(runs)
    ordered = sorted(runs, key=lambda run: (run.parameters, REGIMES.index(run.regime), run.name, run.seed))
    return Results(tuple(ordered), tuple(scores), tasks_of(scores), tuple(notes), caveats, tuple(apart), by_axis)


def _axis_caveats(by_axis: Mapping[str, Sequence[Score]], allow_unequal: bool) -> list[str]:
    """On the budgets of the runs of each value of an axis; those of different values may differ, and the lengths of
    runs of equal FLOPs."""
    groups = [(axis, group) for axis, scores in by_axis.items() for group in by_setting(scores, axis).values()]
    found = [
        (axis, budgets.check(_runs(group), allow_unequal=allow_unequal, lengths=axis != FLOPS))
        for axis, group in groups
    ]
    return [f"In the figures against {axis}: {caveat}" for axis, caveats in found for caveat in caveats]


def _runs(scores: Iterable[Score]) -> list[Run]:
    return list({id(s.run): s.run for s in scores}.values())


def find(paths: Iterable[str | Path]) -> list[Path]:
    """The result files that paths name or contain, each once.

    Results of probes (RESULTS/probe/SPELLING/results.json below a RESULTS/results.json) are skipped.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        below = (file for file in path.glob("**/results.json") if not _probed(file, path))
        files = sorted(below) if path.is_dir() else [path]
        if not files:
            raise UserError("no results.json in this folder or under it", str(path), "run `bigchem evaluate` first")
        for file in files:
            if not file.is_file():
                raise UserError(
                    "no such file or folder",
                    str(file),
                    INPUTS_HINT,
                )
            found.setdefault(file.resolve(), file)
    if not found:
        raise UserError("no result files given", hint=INPUTS_HINT)
    return list(found.values())


def _probed(file: Path, folder: Path) -> bool:
    """Whether a file below this folder belongs to a probe of a model whose results are below it too."""
    below = file.relative_to(folder).parts
    return len(below) > 2 and below[-3] == "probe" and (file.parents[2] / "results.json").is_file()


def _shown(file: Path, stands_for: Mapping[Path, Path]) -> str:
    for folder, given in stands_for.items():
        if folder != given and file.is_relative_to(folder):
            return f"{given}: {file.relative_to(folder)}"
    return str(file)


def read_json(file: Path, source: str | None = None) -> list[Score]:
    """The scores of one results.json; UserError if it is malformed. source: the file's name for people."""
    table = json_file.load(file, max_bytes=MAX_BYTES, hint=INPUTS_HINT)
    if not isinstance(table, dict):
        raise UserError("not a results.json: its top level is not an object", str(file))
    read = validate(_File, table, str(file))
    tasks = shipped() if read.tasks is None else Tasks.from_json(read.tasks, str(file))
    for task in read.mixture if read.tasks is None else ():  # `tasks` has only those that were evaluated
        tasks.find(task, f"{file}: mixture")
    total = sum(read.mixture.values())
    if total == 0:
        raise UserError("'mixture' trains no task: all its weights are 0", str(file))
    shares = {task: weight / total for task, weight in read.mixture.items() if weight > 0}
    files = {task: file.parent / "predictions" / f"{task}.jsonl" for task in shares}
    run = Run(
        name=read.run,
        parameters=read.model.parameters,
        regime="together" if len(shares) > 1 else "alone",
        seed=read.seed,
        source=source or str(file),
        preset=read.model.preset,
        sha256=read.model.sha256,
        mixture=shares,
        step=read.step,
        tokens=read.tokens,
        fingerprint=read.data_fingerprint,
        split=read.split,
        decoding=", ".join(f"{key}={quoted(value)}" for key, value in sorted(read.decoding.items())),
        protocol=read.protocol,
        predictions={task: str(path) for task, path in files.items() if task in tasks and path.is_file()},
        tasks=tasks,
        non_embedding_parameters=read.model.non_embedding_parameters,
        training=None if read.training is None else read.training.record(),
    )
    return [_score(run, metric, f"{file}: metrics[{number}]") for number, metric in enumerate(read.metrics)]


def _score(run: Run, read: _Metric, where: str) -> Score:
    run.tasks.labelled(read.task, f"{where}.task")
    scale = scale_of(read.metric, read.higher_is_better, f"{where}.metric")
    estimate = estimate_of(read.value, read.low, read.high, where)
    return Score(run, read.task, read.metric, scale, estimate, read.definition, read.note, read.n)


def _refuse_two_directions(scores: Sequence[Score]) -> None:
    """UserError, whatever is allowed, if a metric of a package is better higher in one file and lower in another."""
    first: dict[str, Score] = {}
    for score in scores:
        other = first.setdefault(score.metric, score)
        if other.scale.higher_is_better != score.scale.higher_is_better:
            where = f"{other.run.source} and {score.run.source}"
            raise UserError(f"`higher_is_better` of {score.metric} differs", where, "score them again with one version")


def _newest_steps(scores: list[Score]) -> tuple[list[Score], list[str]]:
    """Only the last step of a run evaluated at several, into folders beside each other. Runs of one name elsewhere may
    be of another sweep."""

    def identity(run: Run) -> tuple[Any, ...]:
        folder = Path(run.source).resolve().parent.parent
        return folder, run.name, run.parameters, run.seed, tuple(sorted(run.mixture)), run.split, run.regime

    last: dict[tuple[Any, ...], int] = {}
    for score in scores:
        last[identity(score.run)] = max(score.run.step or 0, last.get(identity(score.run), 0))
    newest = [s for s in scores if (s.run.step or 0) == last[identity(s.run)]]
    older = len({s.run.source for s in scores} - {s.run.source for s in newest})
    return newest, [f"Excluded: {older} result files of earlier steps of the same runs."] if older else []


def _trained_tasks(scores: list[Score]) -> tuple[list[Score], list[str]]:
    """Only scores of tasks that the run was trained on: others are neither together nor alone."""
    trained = [s for s in scores if not s.run.mixture or s.task in s.run.mixture]
    excluded = len(scores) - len(trained)
    return trained, [f"Excluded: {excluded} scores of tasks that their run was not trained on."] if excluded else []
