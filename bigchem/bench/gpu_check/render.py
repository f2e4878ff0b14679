"""A check's JSON as the section of the docs that it stands for. Pure, but for `replace`."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bigchem.base import atomic
from bigchem.base.errors import UserError

BEGIN, END = "<!-- gpu-check: begin -->", "<!-- gpu-check: end -->"
DRY = "**A dry run on a CPU with tiny sizes: it shows that the check runs. Its figures say nothing of a GPU.**"


def section(parts: list[dict[str, Any]]) -> str:
    """The parts' stages as tables, in order; also what was skipped, failed or killed."""
    lines: list[str] = []
    for part in sorted(parts, key=lambda found: int(found["part"])):
        if part["dry_run"]:
            lines += [DRY, ""]
        lines += [f"{part['date']}, `bigchem bench gpu-check --part {part['part']}`, {part['minutes']:g} minutes:", ""]
        for stage in part["stages"]:
            lines += [f"### {stage['what']}", "", *_stage(stage)]
    return "\n".join(lines).rstrip() + "\n"


def _stage(stage: dict[str, Any]) -> Iterable[str]:
    if stage["status"] != "done":
        reason = f": {stage['reason']}" if stage.get("reason") else ""
        yield from (f"**{stage['status']}**{reason}. What it found before:", "")
    report = stage.get("report") or {"rows": [], "figures": [], "skipped": []}
    for rows in _alike(report["rows"]):
        yield from (*table(rows), "")
    if report["figures"]:
        yield from (*table([_figure(figure) for figure in report["figures"]]), "")
    if report["skipped"]:
        yield from ("Skipped:", "", *(f"- {_text(line)}" for line in report["skipped"]), "")


def _alike(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Rows with the same keys, one table each, in order of first appearance."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(row), []).append(row)
    return list(found.values())


def _figure(figure: dict[str, Any]) -> dict[str, Any]:
    target = "" if figure["asked"] is None else f"{'>=' if figure['at_least'] else '<='} {figure['asked']:g}"
    met = "" if figure["holds"] is None else "yes" if figure["holds"] else "**no**"
    return {"what": figure["name"], "figure": figure["value"], "unit": figure["unit"], "target": target, "met": met}


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of rows with equal keys."""
    cells = [[_text(value) for value in row.values()] for row in rows]
    lines = [[*rows[0]], ["---"] * len(rows[0]), *cells]
    return [f"| {' | '.join(line)} |" for line in lines]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return re.sub(r"<(?=[A-Za-z!/])", "&lt;", text.replace("|", "\\|"))  # no table cell may be read as HTML


def replace(page: Path, made: str) -> None:
    """Puts the section between the page's two marks. UserError without them."""
    text = page.read_text(encoding="utf-8")
    found = re.search(f"{re.escape(BEGIN)}.*?{re.escape(END)}", text, re.DOTALL)
    if found is None:
        raise UserError(f"no {BEGIN} and {END}", str(page), "add both lines where the section belongs")
    atomic.write_atomically(page, f"{text[: found.start()]}{BEGIN}\n\n{made}\n{END}{text[found.end() :]}")
