"""Pages as pictures of the documentation: `make pictures` takes those of the last `make demo`.

A page is an HTML file. In place of one, a folder with a model is served by `bigchem serve`, and asked an example.
"""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

WIDTH = 1200
COLOURS = 256
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-sync", "--disable-background-networking"]
"""The browser runs as root in a container, and asks for nothing but the page."""
TASK = "forward"
"""The task of the example, whose predictions are drawn as reactions."""
PATIENCE_S = 300
"""How long the server may take to start, and to answer."""


@contextmanager
def tab(height: int) -> Iterator[Page]:
    """A page in the system's Chromium. height: in pixels."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser.new_page(viewport={"width": WIDTH, "height": height})
        browser.close()


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The address at which `bigchem serve` shows a model, while it does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bigchem", "serve", str(model), "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"})
    try:
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(address, timeout=5):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit("bigchem serve does not answer")
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def ask(page: Page, address: str) -> None:
    """Chooses the example of TASK, and waits for its predictions with their drawings."""
    for _ in range(3):  # on a busy machine a drawing may come too late, and is left out
        page.goto(address)
        page.get_by_role("row").filter(has=page.get_by_text(TASK, exact=True)).click()
        expect(page.locator("#source textarea")).not_to_have_value("", timeout=1000 * PATIENCE_S)
        page.locator("#predict").click()
        expect(page.locator("#made li.prediction").first).to_be_visible(timeout=1000 * PATIENCE_S)
        if page.locator("#given svg").count() and page.locator("#made svg").count():
            page.mouse.move(0, 0)
            return
    sys.exit("bigchem serve draws nothing")


def save(page: Page, out: Path) -> None:
    """The top of the page as a PNG of few colours."""
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(COLOURS).save(out, optimize=True)


def picture(shown: Path, out: Path, height: int) -> None:
    """Saves the top of an HTML page, or of what a model's folder is served as."""
    with tab(height) as page:
        if shown.is_dir():
            with served(shown) as address:
                ask(page, address)
                save(page, out)
        else:
            page.goto(shown.resolve().as_uri())
            save(page, out)


if __name__ == "__main__":
    picture(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
