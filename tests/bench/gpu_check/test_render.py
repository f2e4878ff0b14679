from pathlib import Path
from typing import Any

import pytest

from bigchem.base.errors import UserError
from bigchem.bench.gpu_check.render import BEGIN, DRY, END, replace, section

FIGURE = {"name": "MFU", "value": 41.25, "unit": "%", "asked": 40.0, "at_least": True, "holds": True}
REPORT = {
    "machine": {},
    "rows": [{"who": "ours | packed", "ms": 0.123456, "n": 16384}, {"who": "theirs", "ms": None, "n": 1}, {"x": True}],
    "figures": [FIGURE, {**FIGURE, "name": "peak", "asked": None, "holds": None}],
    "skipped": ["FAT5: it needs CUDA"],
}


def part(number: int = 1, *, dry_run: bool = False, **stage: Any) -> dict[str, Any]:
    made = {"name": "steps", "what": "Training steps", "status": "done", "reason": "", "report": REPORT, **stage}
    return {"part": number, "minutes": 8.0, "dry_run": dry_run, "date": "2026-11-30", "stages": [made]}


def test_rows_and_figures_are_tables_with_their_targets() -> None:
    lines = section([part()]).splitlines()
    assert "| who | ms | n |" in lines
    assert "| ours \\| packed | 0.123 | 16,384 |" in lines
    assert "| theirs |  | 1 |" in lines
    assert "| yes |" in lines
    assert "| MFU | 41.2 | % | >= 40 | yes |" in lines
    assert "| peak | 41.2 | % |  |  |" in lines
    assert "- FAT5: it needs CUDA" in lines
    assert DRY not in lines


def test_a_missed_target_and_a_killed_stage_are_not_hidden() -> None:
    missed = {**REPORT, "figures": [{**FIGURE, "holds": False}]}
    text = section([part(status="killed", reason="not done in its 60 s", report=missed)])
    assert "**killed**: not done in its 60 s" in text
    assert "| MFU | 41.2 | % | >= 40 | **no** |" in text
    assert "**running**" in section([part(status="running", report=None)])


def test_a_dry_run_says_so_and_parts_are_in_order() -> None:
    text = section([part(2), part(1, dry_run=True)])
    assert text.index(DRY) < text.index("--part 1") < text.index("--part 2")
    assert text.count(DRY) == 1


def test_the_section_replaces_the_last_one_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold \\1\n{END}\nafter\n")
    replace(page, "new \\1\n")
    replace(page, "newer\n")
    assert page.read_text() == f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(UserError, match="gpu-check: begin"):
        replace(page, "new")
