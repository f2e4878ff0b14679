"""The page of `bigchem serve`: drawings, safe HTML, and a real click if a browser is available."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from browser import needs_browser, window
from typer.testing import CliRunner

from bigchem.base.errors import UserError
from bigchem.cli.main import app
from bigchem.config import EvaluateConfig
from bigchem.evaluate.generation.predictor import Prediction, Predictor
from bigchem.evaluate.serve import page
from bigchem.evaluate.serve.drawing import UNREAD, Artist, Drawing
from bigchem.tasks import TaskConfig, merged, shipped


def test_predictions_are_text_never_markup() -> None:
    made = page.listing(shipped()["captioning"], [Prediction('<script>"&', -1.5, -0.5, None)])
    assert "<script>" not in made
    assert 'data-text="&lt;script&gt;&quot;&amp;"' in made
    assert "<svg" not in made


def test_molecules_are_drawn_and_marked() -> None:
    predictions = [Prediction("CCO", -1.5, -0.5, True), Prediction("C(", -2.0, -1.0, False)]
    made = page.listing(shipped()["generation"], predictions, [Drawing("<svg></svg>"), Drawing("", UNREAD)])
    assert made.count("<svg") == 1
    assert made.count('class="copy"') == 2
    assert "log p -1.50, -0.500 per token, valid SMILES" in made
    assert "not a valid SMILES" in made


def test_every_task_has_an_example_with_an_answer(model_dir: Path, artist: Artist) -> None:
    predictor = Predictor(model_dir)
    examples = page.examples(predictor.tasks)
    assert [task for task, _ in examples] == list(shipped().scored)
    given, made = page.answer(predictor, artist, "captioning", examples[0][1], beams=1, shown=1)
    assert "<svg" in given
    assert made.count("<li") == 1
    assert "Not SMILES: RDKit" in page.answer(predictor, artist, "forward", "c1ccnc1", beams=1, shown=1)[1]
    noted = page.answer(predictor, artist, "captioning", "CCO ethanol", beams=1, shown=1)[0]
    assert "a name after the SMILES cut: CCO" in noted
    assert "Give an input" in page.answer(predictor, artist, "forward", " ", beams=1, shown=1)[1]


def test_where_the_source_is_a_side_of_a_reaction_all_of_it_is_drawn() -> None:
    best = [Prediction("CCO", -1, -1, True)]
    tasks = merged({"agents": TaskConfig(source="reaction", target="reagents", prompt="P: ")})
    sources = {"forward": "C.O", "retrosynthesis": "CC", "generation": "ethanol", "captioning": "C", "agents": "C>>O"}
    drawn = {task: page.figures(tasks[task], source, best) for task, source in sources.items()}
    assert drawn == {
        "forward": ["C.O>>CCO"],
        "retrosynthesis": ["CCO>>CC"],
        "generation": ["CCO"],
        "captioning": [],
        "agents": ["C>CCO>O"],
    }
    assert page.figures(tasks["agents"], "N->[Pd]>>O", best) == ["N->[Pd]>CCO>O"]


@pytest.fixture(scope="module")
def artist() -> Iterator[Artist]:
    made = Artist()
    yield made
    made.close()


class Echo:
    """A fake model that echoes the input, or raises."""

    tasks = shipped().scored

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, list[tuple[int, int]]()

    def predict(
        self, task: str, texts: list[str], config: EvaluateConfig, deadline: float, fields: Sequence[Mapping[str, str]]
    ) -> list[list[Prediction]]:
        self.asked.append((config.num_beams, config.num_return))
        if self.error is not None:
            raise self.error
        return [[Prediction(texts[0], -1.0, -0.5, True)] * config.num_return]


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("captioning", "C" * 4001, "4,001 characters: the limit is 4,000"),
        ("captioning", "C" * 3000, "Not SMILES: more than 1,000 atoms"),
        ("nothing", "CCO", "Give an input"),
        ("captioning", None, "Give an input"),
    ],
)
def test_what_is_too_large_is_refused_before_the_model(artist: Artist, task: str, text: Any, message: str) -> None:
    echo = Echo()
    assert message in page.answer(echo, artist, task, text, 1, 1)[1]  # type: ignore[arg-type]
    assert echo.asked == []


@pytest.mark.parametrize(
    ("beams", "shown", "asked"),
    [(10**9, 10**9, (20, 10)), (float("nan"), -1, (1, 1)), ("x", None, (1, 1)), (2.0, 3.0, (3, 3)), (True, 1, (1, 1))],
)
def test_numbers_out_of_range_are_brought_into_it(
    artist: Artist, beams: Any, shown: Any, asked: tuple[int, int]
) -> None:
    echo = Echo()
    page.answer(echo, artist, "actions", "stirred", beams, shown)  # type: ignore[arg-type]
    assert echo.asked == [asked]


def test_an_error_names_no_folder_and_a_late_answer_is_told(artist: Artist, capsys: pytest.CaptureFixture[str]) -> None:
    failing = Echo(OSError(2, "No such file or directory", "/home/ada/model"))
    made = page.answer(failing, artist, "actions", "stirred", 1, 1)[1]  # type: ignore[arg-type]
    assert made == "<p>The prediction failed; the server&#x27;s log says why.</p>"
    assert "/home/ada/model" in capsys.readouterr().err
    late = page.answer(Echo(TimeoutError()), artist, "actions", "stirred", 1, 1)[1]  # type: ignore[arg-type]
    assert "No answer within 120 s" in late


def test_the_page_calls_a_model_by_name_and_not_by_its_place(tmp_path: Path) -> None:
    assert page.name_of(tmp_path / "runs" / "base" / "model") == "base"
    assert page.name_of(tmp_path / "mine") == "mine"


def test_a_prediction_ends_at_its_deadline(model_dir: Path) -> None:
    predictor = Predictor(model_dir)
    config = EvaluateConfig(num_beams=2, num_return=1, max_new_tokens=8)
    assert predictor.predict("captioning", ["CCO"], config, deadline=time.monotonic() + 60)
    with pytest.raises(TimeoutError):
        predictor.predict("captioning", ["CCO"], config, deadline=time.monotonic() - 1)


def test_requests_at_the_same_time_have_their_own_answers(model_dir: Path) -> None:
    predictor, config = Predictor(model_dir), EvaluateConfig(num_beams=2, num_return=2, max_new_tokens=8)
    texts = ["CCO", "C" * 60, "c1ccccc1", "CC(=O)O"]
    alone = [predictor.predict("captioning", [text], config)[0] for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: predictor.predict("captioning", [text], config)[0], texts))
    assert [[one.text for one in found] for found in together] == [[one.text for one in found] for found in alone]


def test_what_serve_needs_is_looked_at_before_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First gradio and its imports, then the port."""
    command = ["serve", str(tmp_path / "no model"), "--port"]
    monkeypatch.delitem(sys.modules, "gradio", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "gradio.py").write_text("import absent_dependency")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=r"needs the optional package absent_dependency\nnext: .*pip install"):
            CliRunner().invoke(app, [*command, str(port)], catch_exceptions=False)
        monkeypatch.setitem(sys.modules, "gradio", None)
        with pytest.raises(UserError, match=r"needs the optional package gradio\nnext: .*pip install 'gradio>=6'"):
            CliRunner().invoke(app, [*command, str(port)], catch_exceptions=False)
        monkeypatch.setitem(sys.modules, "gradio", ModuleType("gradio"))
        with pytest.raises(UserError, match=rf"127.0.0.1:{port}: cannot listen: .*\nnext: choose another --port"):
            CliRunner().invoke(app, [*command, str(port)], catch_exceptions=False)
    with pytest.raises(UserError, match="no model: no such folder"):
        CliRunner().invoke(app, [*command, str(port)], catch_exceptions=False)


@pytest.fixture
def served(model_dir: Path) -> Iterator[str]:
    """Address of the page that the command serves."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bigchem", "serve", str(model_dir), "--port", str(port)]
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


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed: extra serve")
def test_the_api_answers_beside_the_page(served: str) -> None:
    """With an answer, or why there is none, and a status."""

    def asked(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, Any]:
        connection = http.client.HTTPConnection(served.removeprefix("http://"), timeout=60)
        connection.request(method, path, body, {"Content-Type": kind})
        with connection.getresponse() as response:
            return response.status, json.load(response)

    body = json.dumps({"task": "captioning", "inputs": ["CCO", "c1ccccc1"], "num_return": 2}).encode()
    status, found = asked("POST", "/predict", body)
    assert (status, [len(one["predictions"]) for one in found["results"]]) == (200, [2, 2])
    assert asked("POST", "/predict", b"{}")[0] == 400
    assert asked("POST", "/predict", body, "text/plain")[0] == 415
    assert asked("POST", "/predict", b" " * 300_000)[0] == 413
    assert list(asked("GET", "/tasks")[1]["tasks"]) == list(shipped().scored)


@needs_browser
def test_a_click_on_copy_copies_the_text_as_it_is() -> None:
    text = """C("<script>'&`x${1}\\n"""
    made = page.listing(
        shipped()["captioning"], [Prediction("first", -1, -1, None), Prediction(text, -1.5, -0.5, None)]
    )
    with window(permissions=CLIPBOARD) as opened:
        # Served from localhost: browsers allow other plain HTTP pages no copying.
        opened.route("**/*", lambda route: route.fulfill(body=f"<meta charset=utf-8>{made}", content_type="text/html"))
        opened.goto("http://localhost/")
        assert opened.locator("li code").nth(1).inner_text() == text
        opened.locator("button.copy").nth(1).click()
        opened.get_by_text("copied", exact=True).wait_for()
        assert opened.evaluate("navigator.clipboard.readText()") == text
        assert opened.locator("button.copy").first.inner_text() == "copy"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed: extra serve")
@needs_browser
def test_a_click_in_a_browser_draws_the_molecule(served: str, tmp_path: Path) -> None:
    """Choose an example, predict, see it drawn and listed, copy it. BIGCHEM_SCREENSHOT: where to save a picture."""
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
