"""A headless Chromium for the tests of pages: they are skipped, with the reason, where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The system's own: playwright would download one."""

_MISSING = (
    "playwright is not installed: extra dev"
    if find_spec("playwright") is None
    else "no Chromium: apt-get install chromium"
    if CHROMIUM is None
    else ""
)
needs_browser = pytest.mark.skipif(bool(_MISSING), reason=_MISSING)
"""Mark of a test that opens a window."""


@contextmanager
def window(**context: Any) -> Iterator[Any]:
    """A playwright Page of 1280 x 900 in a browser of its own. An error in the page's scripts fails the test.

    context: options of playwright's new_context: color_scheme="dark", offline=True, permissions=["clipboard-read"].
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root has no sandbox
        page = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context}).new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        browser.close()
    assert not errors, errors
