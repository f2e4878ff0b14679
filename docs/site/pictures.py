"""Pages as pictures of the documentation: `make pictures` takes those of the last `make demo`."""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH = 1200
COLOURS = 256


def picture(page: Path, out: Path, height: int) -> None:
    """The top of an HTML page as a PNG of few colours, as the system's Chromium draws it. height: in pixels."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": height})
        tab.goto(page.resolve().as_uri())
        image = Image.open(io.BytesIO(tab.screenshot()))
        browser.close()
    image.convert("RGB").quantize(COLOURS).save(out, optimize=True)


if __name__ == "__main__":
    picture(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
