"""Writes the page of one run, or of several compared, as one HTML file without external resources."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from bigchem.base.atomic import write_atomically
from bigchem.base.errors import UserError
from bigchem.base.printable import printable
from bigchem.base.progress import duration
from bigchem.show import contents
from bigchem.show.curves import MOST, Drawing, compared_figures, run_figures
from bigchem.show.record import RunRecord, differing
from bigchem.show.timeline import timeline
from bigchem.sweep.report.figures.drawing import palette_css

EVENTS = 200
"""Events on the page: the last ones."""
GOOD_STATES = ("finished", "trained")
BAD_STATES = ("failed", "lost", "unreadable")


def write_run(record: RunRecord, out: Path) -> None:
    """Writes the page of one run."""
    figures = [*run_figures(record)]
    attempts = timeline(record.attempts)
    _write(
        "run.html.j2",
        out,
        [*figures, *([attempts] if attempts else [])],
        title=f"Run {record.name}",
        record=record,
        status=record.status,
        facts=contents.facts_of(record),
        brief=[row for row in record.scores if record.is_brief(row)],
        figures=figures,
        timeline=attempts,
        attempts=contents.with_losses(record),
        events=record.events[-EVENTS:],
        kinds=Counter(event["kind"] for event in record.events),
        samples=contents.samples_of(record),
        changed=record.changed(),
        links=contents.links_of(record, out.parent),
        board=printable(record.run_dir / "tensorboard"),
    )


def write_comparison(records: Sequence[RunRecord], out: Path) -> None:
    """Writes the page that compares runs. UserError for more than figures can tell apart."""
    if len(records) > MOST:
        what = f"{len(records)} runs: figures can tell {MOST} apart"
        raise UserError(what, "bigchem show", "`bigchem sweep report` compares the scores of many runs")
    labels = contents.labels_of(records)
    figures = [*compared_figures(records, labels)]
    _write(
        "comparison.html.j2",
        out,
        figures,
        title=f"{len(records)} runs compared",
        records=list(zip(labels, records, strict=True)),
        labels=labels,
        figures=figures,
        differing=differing(records),
        brief=contents.scores_of(records, brief=True),
        scores=contents.scores_of(records, brief=False),
        pages={
            label: contents.relative(page, out.parent)
            for label, record in zip(labels, records, strict=True)
            if (page := record.run_dir / "report.html").is_file()
        },
    )


def _local(moment: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    except (OverflowError, ValueError, OSError):  # no time of a calendar
        return "unknown"


def _value(value: object) -> str:
    """A field of the configuration as TOML writes it, as far as a reader cares."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    return "–" if value is None else printable(value, limit=contents.LONGEST)


def _write(template: str, out: Path, drawn: Sequence[Drawing], **values: Any) -> None:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("bigchem.show", "."), PackageLoader("bigchem.sweep.report", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(local=_local, duration=duration, value=_value, printable=printable)
    environment.globals.update(good=GOOD_STATES, bad=BAD_STATES, EVENTS=EVENTS)
    palette = palette_css(":root", "".join(one.inline for one in drawn) + "var(--red)")
    page = environment.get_template(template).render(palette=palette, now=time.time(), **values)
    write_atomically(out, page)
