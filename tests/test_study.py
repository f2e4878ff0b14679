"""docs/study.md says what the committed results say. `python tests/test_study.py`, or `make study`, writes its numbers
and figures."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from real_files import SCIBERT

from bigchem.base.printable import markdown_table
from bigchem.base.progress import Progress
from bigchem.launch.runs import history
from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.archive import unpacked
from bigchem.sweep.report.figures.drawing import Panel
from bigchem.sweep.report.figures.paper import claim_figure, forest_figure
from bigchem.sweep.report.markdown import markdown
from bigchem.sweep.report.write_report import study

ROOT = Path(__file__).parents[1]
PAGE, FOLDER = ROOT / "docs" / "study.md", ROOT / "docs" / "study"
ARCHIVES = sorted(FOLDER.glob("*.tar.xz"))
pytestmark = pytest.mark.thorough  # half a minute for each size
BLOCK = re.compile(r"(?<=<!-- results -->\n).*(?=<!-- end of results -->)", re.DOTALL)
BY_COMPUTE = "captioning"
"""The task whose second baseline the study has."""


@contextmanager
def folders() -> Iterator[list[Path]]:
    with unpacked(ARCHIVES) as found:
        yield list(found)


def analysed(paths: Sequence[Path], alone: str) -> Analysis:
    paths = [path for path in paths if any(path.rglob("results.json"))]  # of some, only the short runs have ended
    has_several = any('"alone": "compute"' in file.read_text() for path in paths for file in path.rglob("results.json"))
    return study(paths, at=[f"alone={alone}"] if has_several else [], progress=Progress(quiet=True))


def figures(analysis: Analysis) -> list[Panel]:
    return [panel for panel in (claim_figure(analysis), forest_figure(analysis)) if panel is not None]


def results(paths: Sequence[Path], analysis: Analysis) -> str:
    """What the page says between its marks."""
    parts = [
        markdown(analysis),
        "![The gain of sharing against parameters, by kind of task](study/claim.png)",
        "![The gain of sharing at the largest size, every metric](study/forest.png)",
    ]
    if analysis.axes:
        claim = analysed(paths, "compute")
        heads = ("| metric | parameters |", "| gain of | slope |")
        tables = [part for part in markdown(claim).split("\n\n") if part.startswith(heads)]
        parts += [f"Against {BY_COMPUTE} alone by equal compute:", *map(_of_one_task, tables)]
    parts += ["Learning rates, by validation loss of the short runs:", _rates(paths), "What it took:", _hours(paths)]
    return "\n" + "\n\n".join(part.strip("\n") for part in parts) + "\n\n"


def _of_one_task(table: str) -> str:
    head, rule, *rows = table.splitlines()
    return "\n".join([head, rule, *(row for row in rows if row.startswith(f"| {BY_COMPUTE}, "))])


def _rates(paths: Sequence[Path]) -> str:
    chosen: dict[str, dict[str, str]] = defaultdict(dict)
    for file in sorted(file for path in paths for file in path.rglob("results.json")):
        read = json.loads(file.read_text())
        losses, lr = read["training"]["sweep"]["selected"]["optimizer.lr"], read["training"]["lr"]
        size, _, mixture = read["run"].rpartition("-")[0].partition("-")
        chosen[mixture][size] = f"{lr:g} ({', '.join(f'{value}: {loss:.3f}' for value, loss in losses.items())})"
    sizes = sorted({size for found in chosen.values() for size in found}, key=lambda size: float(size[:-1]))
    return markdown_table(
        ("", *sizes), [[name, *(found.get(size, "–") for size in sizes)] for name, found in chosen.items()]
    )


def _hours(paths: Sequence[Path]) -> str:
    spent: dict[str, list[float]] = defaultdict(list)
    for file in (file for path in paths for file in path.rglob(history.FILE)):
        size = file.parent.name.partition("-")[0]
        spent[size] += [sum(row.seconds * row.ranks for row in history.read(file.parent)) / 3600]
    rows = [
        [size, str(len(found)), f"{sum(found):.1f}"]
        for size, found in sorted(spent.items(), key=lambda item: float(item[0][:-1]))
    ]
    rows.append(["all", str(sum(map(len, spent.values()))), f"{sum(map(sum, spent.values())):.1f}"])
    return markdown_table(("parameters", "runs, with those that choose rates", "hours of one core"), rows)


def _parts(csv: str) -> tuple[str, list[float]]:
    """A table's text without its numbers, and its numbers."""
    number = r"-?\d+\.\d+(?:e-?\d+)?"
    return re.sub(number, "", csv), [float(found) for found in re.findall(number, csv)]


@pytest.fixture(scope="module")
def whole() -> Iterator[tuple[list[Path], Analysis]]:
    if not ARCHIVES:
        pytest.skip("no run of the study has ended")
    if "BIGCHEM_SCIBERT" not in os.environ:
        pytest.skip("BLEU of captions is resampled with SciBERT's vocabulary: BIGCHEM_SCIBERT")
    with folders() as paths:
        yield paths, analysed(paths, "examples")


def test_the_page_has_the_numbers_of_the_committed_results(whole: tuple[list[Path], Analysis]) -> None:
    assert BLOCK.findall(PAGE.read_text()) == [results(*whole)], "make study writes them"


def test_the_figures_are_of_the_committed_results(whole: tuple[list[Path], Analysis]) -> None:
    for panel in figures(whole[1]):
        committed = (FOLDER / f"{panel.name}.csv").read_text()
        words, numbers = zip(*map(_parts, (committed, panel.csv)), strict=True)
        assert words[0] == words[1]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-6, abs=1e-9)  # sums in another order
        assert (FOLDER / f"{panel.name}.png").stat().st_size > 10_000


if __name__ == "__main__":
    os.environ.setdefault("BIGCHEM_SCIBERT", str(SCIBERT))
    with folders() as found:
        analysis = analysed(found, "examples")
        text = results(found, analysis)
        PAGE.write_text(BLOCK.sub(lambda _: text, PAGE.read_text()))
        for panel in figures(analysis):
            (FOLDER / f"{panel.name}.png").write_bytes(panel.png)
            (FOLDER / f"{panel.name}.csv").write_text(panel.csv)
