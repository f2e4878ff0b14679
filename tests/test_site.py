"""The documentation site: its FAQ quotes real messages, its tutorials' files are accepted, and every page is readable
on a phone. `make docs` builds it; its links are checked there, by MkDocs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import needs_browser, window

from bigchem.launch.cluster.profile import load_profile
from bigchem.sweep.grid import load_grid

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs" / "guide"
SITE = ROOT / "site"
PHONE = {"width": 390, "height": 844}


def test_the_faqs_messages_are_those_of_the_code() -> None:
    code = " ".join(path.read_text() for path in (ROOT / "bigchem").rglob("*.py"))
    code = re.sub(r'"\s+f?"', "", code)  # strings that go on in the next line
    rows = re.findall(r"^\| `([^`]+)`", (GUIDE / "faq.md").read_text(), re.MULTILINE)
    assert len(rows) > 40
    for message in rows:
        if message.startswith("No module named"):  # Python's
            continue
        for piece in message.split("..."):
            assert piece.strip(" ,:") in code, message


def test_the_files_of_the_tutorials_are_accepted(tmp_path: Path) -> None:
    for page, load in (("cluster.md", load_profile), ("size.md", load_grid)):
        (text,) = re.findall(r"^```toml\n(.*?)^```", (GUIDE / page).read_text(), re.MULTILINE | re.DOTALL)
        file = tmp_path / page.replace(".md", ".toml")
        file.write_text(text)
        load(str(file))


def test_every_page_is_in_the_navigation() -> None:
    """As the strict build demands; here without MkDocs. The hook has the pages outside docs/."""
    listed = set(re.findall(r"^ +- .*: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    hook = (ROOT / "docs" / "site" / "links.py").read_text()
    outside = dict(re.findall(r'^    "(\S+\.md)": "(\S+\.md)",$', hook, re.MULTILINE))
    assert all((ROOT / place).is_file() for place in outside)
    own = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert listed == own | set(outside.values())


@needs_browser
@pytest.mark.thorough
@pytest.mark.skipif(not SITE.is_dir(), reason="no site here: make docs")
def test_every_page_of_the_site_fits_a_phone() -> None:
    pages = sorted(SITE.rglob("*.html"))
    assert len(pages) > 25
    with window(viewport=PHONE) as page:
        for file in pages:
            page.goto(file.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], file.name
