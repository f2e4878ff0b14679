"""How `bigchem status` shows runs: a table for the terminal, Markdown or CSV for a report, and a summary of many."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from rich.table import Table

from bigchem.base.printable import csv_text, markdown_table, markup
from bigchem.base.progress import duration
from bigchem.launch.runs.status import RunStatus
from bigchem.launch.runs.usage import Remaining, remaining_of_all

Cell = Callable[[RunStatus], str]
DAY_S = 86400.0


def table(rows: Sequence[RunStatus]) -> Table:
    """The rows as a table for the terminal."""
    made = Table(box=None)
    for name in COLUMNS:
        made.add_column(name, overflow="fold", no_wrap=name not in ("checkpoint", "nodes", "reason"))
    for row in rows:
        made.add_row(*(markup(cell(row)) for cell in COLUMNS.values()))
    return made


def to_markdown(rows: Sequence[RunStatus]) -> str:
    """The same as a table in Markdown."""
    return markdown_table(list(COLUMNS), ([cell(row) for cell in COLUMNS.values()] for row in rows))


def to_csv(rows: Sequence[RunStatus]) -> str:
    """Every field of every row, as in JSON."""
    return csv_text([field.name for field in fields(RunStatus)], to_json(rows))


def to_json(rows: Sequence[RunStatus]) -> list[dict[str, Any]]:
    """The rows as plain data."""
    return [asdict(row) for row in rows]


@dataclass(frozen=True)
class Summary:
    """A summary of many runs. done: finished, or trained if no evaluation follows. on_their_way: queued, or running.

    progress: share of all runs' steps that are done. hours: of GPUs, or on a CPU of processes; see usage.py.
    efficiency: over all runs' time. eta_s: until all active runs are done, if as many run at a time as now.
    """

    runs: int
    states: Mapping[str, int]
    done: int
    on_their_way: int
    progress: float
    hours: Mapping[str, float]
    efficiency: float | None
    eta_s: float | None

    @property
    def stranded(self) -> int:
        """Runs that are neither done nor active."""
        return self.runs - self.done - self.on_their_way


def summary(rows: Sequence[RunStatus]) -> Summary:
    """Summarizes runs. A waiting run is assumed to take the median time of those that have begun."""
    done = [row for row in rows if row.is_done(row.steps) or row.state == "trained"]
    active = [row for row in rows if row.active and row not in done]
    steps, measured = sum(row.steps for row in rows), [row for row in rows if row.efficiency is not None]
    seconds = sum(row.seconds for row in measured)
    hours = Counter[str]()
    for row in rows:
        hours[row.hours_of] += row.hours  # type: ignore[assignment]
    typical = [row.seconds * row.steps / row.step for row in rows if row.step and row.seconds]
    return Summary(
        runs=len(rows),
        states=dict(Counter(row.state for row in rows).most_common()),
        done=len(done),
        on_their_way=len(active),
        progress=sum(min(row.step, row.steps) for row in rows) / steps if steps else 0.0,
        hours={name: value for name, value in hours.items() if value},
        efficiency=sum((row.efficiency or 0) * row.seconds for row in measured) / seconds if seconds else None,
        eta_s=remaining_of_all([_left(row, typical) for row in active]),
    )


def summary_lines(found: Summary) -> str:
    """The summary as text."""
    states = ", ".join(f"{count} {state}" for state, count in found.states.items())
    hours = ", ".join(f"{value:,.1f} {name}-hours" for name, value in found.hours.items()) or "nothing yet"
    share = "" if found.efficiency is None else f", {found.efficiency:.0%} of the time in training"
    eta = "unknown" if found.eta_s is None else duration(found.eta_s)
    if not found.on_their_way:
        eta = "nothing queued or running"
    stranded = f"; {found.stranded} neither done nor active" if found.stranded else ""
    return "\n".join(
        [
            f"{found.runs} runs   {states}",
            f"done      {found.done} of {found.runs}, {found.progress:.0%} of all steps{stranded}",
            f"used      {hours}{share}",
            f"time left {eta}",
        ]
    )


def _left(row: RunStatus, typical: Sequence[float]) -> Remaining:
    seconds = row.eta_s
    if seconds is None and typical and row.steps:
        seconds = statistics.median(typical) * max(0, row.steps - row.step) / row.steps
    return Remaining(row.state == "queued", seconds)


def _state(row: RunStatus) -> str:
    if row.starts_at is not None:
        return f"{row.state}, starts ~{_clock(row.starts_at)}"
    old = row.active is None and row.state_age_s is not None
    return row.state + (f" {duration(row.state_age_s or 0)} ago" if old else "")


def _clock(at: float) -> str:
    """The local time, with the day if it is more than a day away."""
    return time.strftime("%H:%M" if at - time.time() < DAY_S else "%d %b %H:%M", time.localtime(at))


def _used(row: RunStatus) -> str:
    if not row.hours:
        return "-"
    digits = 1 if row.hours >= 1 else 3
    return f"{row.hours:.{digits}f} {'GPU-h' if row.hours_of == 'GPU' else 'process-h'}"


def _checkpoint(row: RunStatus) -> str:
    age = "" if row.checkpoint_age_s is None else f" {duration(row.checkpoint_age_s)} ago"
    return "-" if row.checkpoint is None else f"{row.checkpoint}{age}"


COLUMNS: Mapping[str, Cell] = {
    "run": lambda row: row.run,
    "state": _state,
    "step": lambda row: f"{row.step}/{row.steps}",
    "loss": lambda row: "-" if row.loss is None else f"{row.loss:.4f}",
    "tokens/s": lambda row: "-" if row.tokens_per_s is None else f"{row.tokens_per_s:.0f}",
    "eta": lambda row: "-" if row.eta_s is None else duration(row.eta_s),
    "used": _used,
    "efficiency": lambda row: "-" if row.efficiency is None else f"{row.efficiency:.0%}",
    "checkpoint": _checkpoint,
    "restarts": lambda row: "-" if row.restarts is None else str(row.restarts),
    "nodes": lambda row: row.nodes or "-",
    "job": lambda row: row.job or "-",
    "reason": lambda row: "; ".join(filter(None, (row.reason, row.damage))),
}
