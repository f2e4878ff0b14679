"""The page of `bigchem serve`: drawings, safe HTML, and a real click in a real browser where there is one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
from browser import needs_browser, window
from typer.testing import CliRunner

from bigchem.cli import app
from bigchem.errors import UserError
from bigchem.evaluate import page
from bigchem.evaluate.predictor import Prediction, Predictor
from bigchem.tasks import TASK_NAMES


def test_a_molecule_is_drawn_and_what_is_none_is_not() -> None:
    assert page.drawing("CC(=O)[O-]~[Na+]").startswith("<svg")
    assert "<path" in page.drawing("CCO")
    assert page.drawing("C(") == page.drawing("") == ""


def test_predictions_are_text_never_markup() -> None:
    made = page.listing("captioning", [Prediction('<script>"&', -1.5, -0.5, None)])
    assert "<script>" not in made
    assert 'data-text="&lt;script&gt;&quot;&amp;"' in made
    assert "<svg" not in made


def test_molecules_are_drawn_and_marked() -> None:
    made = page.listing("generation", [Prediction("CCO", -1.5, -0.5, True), Prediction("C(", -2.0, -1.0, False)])
    assert made.count("<svg") == 1
    assert made.count('class="copy"') == 2
    assert "log p -1.50, -0.500 per token, valid SMILES" in made
    assert "not a valid SMILES" in made


def test_every_task_has_an_example_with_an_answer(model_dir: Path) -> None:
    assert [task for task, _ in page.EXAMPLES] == list(TASK_NAMES)
    predictor = Predictor(model_dir)
    given, made = page.answer(predictor, "captioning", page.EXAMPLES[0][1], beams=1, shown=1)
    assert "<svg" in given
    assert made.count("<li") == 1
    assert "does not read" in page.answer(predictor, "forward", "not SMILES", beams=1, shown=1)[0]
    assert "Give an input" in page.answer(predictor, "forward", " ", beams=1, shown=1)[1]


def test_what_serve_needs_is_looked_at_before_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gradio with all that it imports, then the port."""
    command = ["serve", str(tmp_path / "no model"), "--port"]
    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "gradio.py").write_text("import absent_dependency")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match="needs the optional package absent_dependency\nnext: pip install"):
            CliRunner().invoke(app, [*command, str(port)], catch_exceptions=False)
        monkeypatch.setitem(sys.modules, "gradio", None)
        with pytest.raises(UserError, match="needs the optional package gradio\nnext: pip install"):
            CliRunner().invoke(app, [*command, str(port)], catch_exceptions=False)
        monkeypatch.setitem(sys.modules, "gradio", ModuleType("gradio"))
        with pytest.raises(UserError, match=rf"127.0.0.1:{port}: cannot listen: .*\nnext: choose another --port"):
            CliRunner().invoke(app, [*command, str(port)], catch_exceptions=False)
    with pytest.raises(UserError, match="no model: no such folder"):
        CliRunner().invoke(app, [*command, str(port)], catch_exceptions=False)


@pytest.fixture
def served(model_dir: Path) -> Iterator[str]:
    """The address of the page, served by the command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bigchem.cli", "serve", str(model_dir), "--port", str(port)]
    process = subprocess.Popen(command, env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"})
    try:
        address, until = f"http://127.0.0.1:{port}", time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(address, timeout=5):
                    break
            except OSError:
                assert process.poll() is None, "bigchem serve has ended"
                assert time.monotonic() < until, "bigchem serve does not answer"
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(20)


CLIPBOARD = ["clipboard-read", "clipboard-write"]


@needs_browser
def test_a_click_on_copy_copies_the_text_as_it_is() -> None:
    text = """C("<script>'&`x${1}\\n"""
    made = page.listing("captioning", [Prediction("first", -1, -1, None), Prediction(text, -1.5, -0.5, None)])
    with window(permissions=CLIPBOARD) as opened:
        # A page of this machine: browsers let no other plain page copy.
        opened.route("**/*", lambda route: route.fulfill(body=f"<meta charset=utf-8>{made}", content_type="text/html"))
        opened.goto("http://localhost/")
        assert opened.locator("li code").nth(1).inner_text() == text
        opened.locator("button.copy").nth(1).click()
        opened.get_by_text("copied", exact=True).wait_for()
        assert opened.evaluate("navigator.clipboard.readText()") == text
        assert opened.locator("button.copy").first.inner_text() == "copy"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed: pip install 'bigchem[serve]'")
@needs_browser
def test_a_click_in_a_browser_draws_the_molecule(served: str, tmp_path: Path) -> None:
    """An example is chosen, predicted, drawn, listed and copied. BIGCHEM_SCREENSHOT: where a picture is kept."""
    from playwright.sync_api import expect

    picture = Path(os.environ.get("BIGCHEM_SCREENSHOT", tmp_path / "page.png"))
    with window(permissions=CLIPBOARD) as opened:
        opened.goto(served)
        opened.get_by_text("CC(=O)Oc1ccccc1C(=O)O", exact=True).first.click()
        expect(opened.locator("#source textarea")).to_have_value("CC(=O)Oc1ccccc1C(=O)O", timeout=30_000)
        opened.locator("#predict").click()
        expect(opened.locator("#made li.prediction")).to_have_count(3, timeout=60_000)
        svg = opened.locator("#given svg")
        expect(svg).to_be_visible()
        box = svg.bounding_box()
        assert box is not None
        assert box["width"] > 100
        assert svg.locator("path").count() > 5
        opened.screenshot(path=picture)
        opened.locator("#made button.copy").first.click()
        expect(opened.locator("#made button.copy").first).to_have_text("copied")
        best = opened.locator("#made code").first.inner_text()
        assert opened.evaluate("navigator.clipboard.readText()").strip() == best.strip()
    assert picture.stat().st_size > 10_000
