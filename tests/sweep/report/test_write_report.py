from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from planted_sweep import SIZES, write_sweep

from bigchem.base.errors import UserError
from bigchem.sweep.report import write_report

BEYOND = 4e7
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """Rows of the tables (cell texts and data-values), ids, and every attribute that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[tuple[str, str]]] = {}
        self.ids: list[str] = []
        self.links: list[str] = []
        self._row: list[tuple[str, str]] | None = None
        self._table = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("src", "href", "xlink:href") if name in given]
        if tag == "table":
            self._table = given["id"]
        if tag == "tr" and "data-key" in given:
            self._row = self.rows.setdefault(f"{self._table}|{given['data-key']}", [])
        if tag == "td" and self._row is not None:
            self._row.append((given.get("data-value", ""), ""))

    def handle_data(self, data: str) -> None:
        if self._row and data.strip():
            value, text = self._row[-1]
            self._row[-1] = value, text + data.strip()

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr":
            self._row = None


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep = write_sweep(tmp_path_factory.mktemp("sweep"), noise=0.01, alone=("captioning", "generation"))
    folder = tmp_path_factory.mktemp("out")
    analysis = write_report.study([sweep], extrapolate=[BEYOND])
    assert write_report.write(analysis, folder, title="Demo <sweep>") == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    return Page((out / "report.html").read_text())


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_pages_numbers_are_those_of_the_csv_files(out: Path, page: Page) -> None:
    columns = {"together": 3, "alone": 4}
    metrics = table(out / "metrics.csv")
    assert len(metrics) == len(SIZES) * (12 + 6)
    for row in metrics:
        value, text = page.rows[f"all|{row['task']}:{row['metric']}:{row['parameters']}"][columns[row["regime"]]]
        assert value == row["value"]
        assert page.rows[f"all|{row['task']}:{row['metric']}:{row['parameters']}"][6][0] == row["n"]
        if value:
            assert text == f"{float(row['value']):.3f} [{float(row['low']):.3f}, {float(row['high']):.3f}]"
        else:
            assert text == "–"
    gains = table(out / "gain.csv")
    assert len(gains) == len(SIZES) * 5
    for row in gains:
        value, text = page.rows[f"all|{row['task']}:{row['metric']}:{row['parameters']}"][5]
        assert value == row["gain"]
        assert text.startswith(f"{float(row['gain']):+.3f} [".replace("-", "−"))


def test_the_tables_of_kinds_and_of_other_sizes_are_those_of_the_csv_files(out: Path, page: Page) -> None:
    kinds = table(out / "kinds.csv")
    assert {row["kind"] for row in kinds} == {"cross-domain"}
    for row in kinds:
        cells = page.rows[f"kinds|{row['kind']}:{row['of']}:{row['parameters']}"]
        assert (cells[4][0], cells[5][0]) == (row["gain"], row["slope"])
    beyond = table(out / "beyond.csv")
    assert {(row["parameters"], row["measured"]) for row in beyond} == {(str(BEYOND), "False")}
    for row in beyond:
        cells = page.rows[f"beyond|{row['task']}:{row['metric']}:{row['regime']}:{row['parameters']}"]
        assert cells[4][0] == row["value"]
        assert cells[4][1].startswith(f"{float(row['value']):.3f} [")


def test_a_figures_csv_has_the_points_of_the_metrics_table_and_its_curve(out: Path) -> None:
    drawn = table(out / "figures" / "captioning-bleu4_words.csv")
    metrics = [r for r in table(out / "metrics.csv") if (r["task"], r["metric"]) == ("captioning", "bleu4_words")]
    numbers = ("parameters", "value", "low", "high")
    points = {(row["series"], *(row[n] for n in numbers)) for row in drawn if row["what"] == "point"}
    assert points == {(row["regime"], *(row[n] for n in numbers)) for row in metrics}
    ends = [float(r["parameters"]) for r in drawn if r["what"] == "curve" and r["series"] == "alone"]
    assert (min(ends), max(ends)) == pytest.approx((SIZES[0], BEYOND))


def test_a_kind_with_several_tasks_has_a_figure_of_its_own(out: Path) -> None:
    series = {row["series"] for row in table(out / "figures" / "cross-domain-gain.csv")}
    assert series == {"mean", "captioning bleu4_words", "generation exact"}
    assert not (out / "figures" / "single-domain-gain.csv").exists()


def test_missing_cells_are_dashes_not_zeros(page: Page) -> None:
    cells = page.rows[f"headline|forward:top1:{SIZES[0]}"]
    assert cells[4] == ("", "–")
    assert cells[5] == ("", "–")


def test_the_page_loads_nothing_from_elsewhere(out: Path, page: Page) -> None:
    text = (out / "report.html").read_text()
    assert not re.search(r"(https?:)?//[a-z0-9]", text, flags=re.IGNORECASE)
    assert "@import" not in text
    assert page.links
    for link in page.links:
        assert link.startswith("#") or (out / link).is_file(), link


def test_ids_are_unique_and_every_reference_has_its_target(out: Path, page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    text = (out / "report.html").read_text()
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | {link[1:] for link in page.links if link.startswith("#")}
    assert used <= set(page.ids)


def test_titles_are_escaped(out: Path) -> None:
    assert "<h1>Demo &lt;sweep&gt;</h1>" in (out / "report.html").read_text()


def test_figures_exist_as_svg_and_png_and_speak(out: Path) -> None:
    names = {file.stem for file in (out / "figures").glob("*.svg")}
    assert {"captioning-bleu4_words", "captioning-bleu4_words-gain", "forward-top1", "actions-loss"} <= names
    assert "forward-top1-gain" not in names
    assert names == {file.stem for file in (out / "figures").glob("*.png")}
    assert names == {file.stem for file in (out / "figures").glob("*.csv")}
    root = ET.parse(out / "figures" / "captioning-bleu4_words.svg").getroot()  # noqa: S314
    assert root.get("role") == "img"
    description = root.find(f"{SVG}desc")
    assert description is not None
    assert "together: " in str(description.text)
    assert "alone: " in str(description.text)


def test_colours_of_figures_follow_the_page(out: Path) -> None:
    text = (out / "report.html").read_text()
    drawn = text[text.index("<figure>") : text.rindex("</figure>")]
    assert "currentColor" in drawn
    assert "var(--blue)" in drawn
    assert not re.search(r"(fill|stroke): #", drawn)
    assert "prefers-color-scheme:dark" in text


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", sizes=SIZES[:2], alone=())
    first, second = (
        write_report.write(write_report.study([sweep], ["actions:bleu2"]), tmp_path / name) for name in ("a", "b")
    )
    assert first.read_bytes() == second.read_bytes()


def test_figures_of_an_earlier_report_are_replaced_and_anyone_elses_are_not(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", sizes=SIZES[:1], alone=())
    for metric in ("bleu2", "loss"):
        analysis = write_report.study([sweep], [f"actions:{metric}"])
        write_report.write(analysis, tmp_path / "paper")
    figures = tmp_path / "paper" / "figures"
    assert {file.name for file in figures.glob("*.svg")} == {"actions-loss.svg"}
    (figures / "photo.png").touch()
    with pytest.raises(UserError, match=r"figures: .* photo\.png was not written by"):
        write_report.write(analysis, tmp_path / "paper")
    assert (figures / "photo.png").is_file()
