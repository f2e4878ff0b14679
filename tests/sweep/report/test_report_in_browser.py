"""The report as a reader sees it: in a browser, offline, in both colour schemes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import needs_browser, window
from planted_sweep import SIZES, write_sweep

from bigchem.sweep.report import write_report

pytestmark = needs_browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sweep = write_sweep(tmp_path_factory.mktemp("sweep"), noise=0.01)
    return write_report.write(
        write_report.study([sweep], ["captioning:bleu4_words", "forward:top1"]), tmp_path_factory.mktemp("out")
    )


def column(page: Any, number: int) -> list[str]:
    return [str(text) for text in page.locator(f"#headline tbody td:nth-child({number})").all_inner_texts()]


def test_a_click_sorts_a_table_by_its_numbers_and_another_turns_it(page_file: Path) -> None:
    with window(offline=True) as page:
        page.goto(page_file.as_uri())
        before = column(page, 3)
        head = page.locator("#headline th", has_text="parameters")
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert column(page, 3) == sorted(before, key=lambda name: float(name.removesuffix("M")))
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert column(page, 3)[0] == "5.2M"
        page.locator("#headline th button", has_text="task").press("Enter")  # by keyboard as well
        assert column(page, 1) == sorted(column(page, 1))
        assert head.get_attribute("aria-sort") is None
        assert len(column(page, 1)) == 5 * len(SIZES)


FAR_FROM_MARKERS = """
[...document.querySelectorAll('.point circle')].filter(circle => {
  const middle = e => { const box = e.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2] };
  const [x, y] = middle(circle);
  return ![...circle.closest('svg').querySelectorAll('use')].some(marker => {
    const [a, b] = middle(marker);
    return Math.hypot(a - x, b - y) < 3;
  });
}).length
"""


def test_a_point_shows_its_values_under_the_pointer_and_by_keyboard(page_file: Path) -> None:
    with window(offline=True) as page:
        page.goto(page_file.as_uri())
        points = page.locator("svg:has(#captioning-bleu4_words-t) .point")
        assert points.count() == 2 * len(SIZES)
        first, second = points.nth(2), points.nth(3)  # together at the largest size, alone at the smallest
        row = page.locator(f'#headline tr[data-key="captioning:bleu4_words:{SIZES[2]}"]')
        value = row.locator("td:nth-child(4)").inner_text()
        lines = first.locator("tspan").all_text_contents()
        assert lines == ["captioning BLEU-4 (words), together", f"5.2M: {value}"]
        assert first.get_attribute("aria-label") == "; ".join(lines)
        assert not first.locator("text").is_visible()
        first.locator("circle").hover()
        assert first.locator("text").is_visible()
        page.mouse.move(0, 0)
        assert not first.locator("text").is_visible()
        first.focus()
        assert first.locator("text").is_visible()
        page.keyboard.press("Tab")
        assert [point.locator("text").is_visible() for point in (first, second)] == [False, True]
        assert page.locator(".point").count() > 50
        assert page.evaluate(FAR_FROM_MARKERS) == 0


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of "rgb(r, g, b)"."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.thorough)])
def test_all_text_is_legible_and_nothing_is_clipped(page_file: Path, tmp_path: Path, scheme: str) -> None:
    with window(offline=True, color_scheme=scheme) as page:
        logged: list[str] = []
        page.on("console", lambda message: logged.append(message.text))
        page.goto(page_file.as_uri())
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (luminance(back) > 0.5) == (scheme == "light")
        texts = page.evaluate(
            "[...document.querySelectorAll('p, li, figcaption, svg text')].map(e => {"
            " const style = getComputedStyle(e); return e.closest('svg') ? style.fill : style.color })"
        )
        assert len(texts) > 50
        for text in set(texts):
            lighter, darker = sorted((luminance(text), luminance(back)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, text
        outside = page.evaluate(
            "[...document.querySelectorAll('figure')].flatMap(f => { const box = f.getBoundingClientRect();"
            " return [...f.querySelectorAll('svg text')].filter(t => { const r = t.getBoundingClientRect();"
            " return r.left < box.left - 1 || r.right > box.right + 1 }).map(t => t.textContent) })"
        )
        assert outside == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        assert (tmp_path / f"{scheme}.png").stat().st_size > 50_000
        assert logged == []
