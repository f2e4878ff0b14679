"""A page as the picture that README shows: `make pictures` takes the report of the last `make demo`."""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

SIZE = {"width": 1200, "height": 1820}
"""Of README's picture: the report down to the gains of sharing."""
COLOURS = 128


def picture(page: Path, out: Path) -> None:
    """The top of an HTML page as a PNG of few colours, as the system's Chromium draws it."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport=SIZE)
        tab.goto(page.resolve().as_uri())
        image = Image.open(io.BytesIO(tab.screenshot()))
        browser.close()
    image.convert("RGB").quantize(COLOURS).save(out, optimize=True)


if __name__ == "__main__":
    picture(*map(Path, sys.argv[1:3]))
