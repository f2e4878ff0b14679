"""`bigchem sweep results`: each run's metrics, and which runs have none and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from bigchem.base.printable import csv_text, markup
from bigchem.launch.runs.status import RunStatus
from bigchem.sweep.scores.aggregate import Key, chosen_metrics, headlines
from bigchem.sweep.scores.records import Run, Score, tasks_of
from bigchem.sweep.scores.results import read_json
from bigchem.sweep.scores.score_table import MAIN_COLUMNS


@dataclass(frozen=True)
class Outcome:
    """A run and its scores. missing: why it has none, or was evaluated before its last step; None if nothing is."""

    status: RunStatus
    scores: tuple[Score, ...]
    missing: str | None


def outcome(run_dir: Path, status: RunStatus) -> Outcome:
    """A run's scores, read from its results.json."""
    file = run_dir / "results" / "results.json"
    if not file.is_file():
        why = f": {status.reason}" if status.reason else ""
        return Outcome(status, (), f"{status.state} at {status.step}/{status.steps}{why}")
    scores = tuple(read_json(file))
    early = min({_trained_to(score.run) for score in scores} - {status.step}, default=None)
    now = f"the run is {status.state} at {status.step}"
    return Outcome(status, scores, None if early is None else f"results are from step {early}; {now}")


def _trained_to(run: Run) -> int:
    """The step up to which a run was trained when it was evaluated; the evaluated one may be an earlier, better one."""
    done = None if run.training is None else run.training.steps_done
    return (run.step or 0) if done is None else done


def table(outcomes: Sequence[Outcome], metrics: Sequence[str] = (), usual: Sequence[str] = ()) -> Table:
    """One row per run, one column per metric. metrics: TASK:METRIC, UserError for one without results. usual: those to
    show, as far as there are results, if none is given; without them, each task's headline."""
    rows = Table("run", box=None)
    keys = _keys(outcomes, metrics, usual)
    for task, metric in keys:
        rows.add_column(f"{task}\n{markup(metric)}", no_wrap=True)
    rows.add_column("missing", overflow="fold")
    for found in outcomes:
        known = {(score.task, score.metric): score for score in found.scores}
        rows.add_row(markup(found.status.run), *(_cell(known.get(key)) for key in keys), markup(found.missing or ""))
    return rows


def to_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """All metrics of all runs, as plain data."""
    return [
        {
            "run": found.status.run,
            "state": found.status.state,
            "missing": found.missing,
            "metrics": [
                {
                    "task": s.task,
                    "metric": s.metric,
                    **_numbers(s),
                    "n": s.n,
                    "definition": s.definition,
                    "note": s.note,
                    "higher_is_better": s.scale.higher_is_better,
                }
                for s in found.scores
            ],
        }
        for found in outcomes
    ]


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """All metrics of all runs, one line each, in the format that `sweep report` reads."""
    rows = []
    for score in (score for found in outcomes for score in found.scores):
        run = score.run
        about = {"parameters": run.parameters, "regime": run.regime, "seed": run.seed, "run": run.name}
        better = str(score.scale.higher_is_better).lower()
        found = {"task": score.task, "metric": score.metric, **_numbers(score), "n": score.n}
        rows.append({**about, **found, "higher_is_better": better})
    return csv_text((*MAIN_COLUMNS, "n", "higher_is_better"), rows)


def _keys(outcomes: Sequence[Outcome], metrics: Sequence[str], usual: Sequence[str]) -> list[Key]:
    scores = [score for found in outcomes for score in found.scores]
    known = list(dict.fromkeys((s.task, s.metric) for s in scores))
    available = {f"{task}:{metric}" for task, metric in known}
    chosen = chosen_metrics(metrics or [name for name in usual if name in available], known)
    return list(chosen or headlines(scores, tasks_of(scores)).items())


def _numbers(score: Score) -> dict[str, float | None]:
    if score.estimate is None:
        return dict.fromkeys(("value", "low", "high"))
    return {"value": score.estimate.value, "low": score.estimate.low, "high": score.estimate.high}


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    if score.estimate is None:
        return "n/a"
    found = score.estimate
    interval = "" if found.low is None or found.high is None else rf" \[{found.low:z.4f}, {found.high:z.4f}]"
    return f"{found.value:z.4f}{interval}" + ("" if score.n is None else f" n {score.n:,}")
