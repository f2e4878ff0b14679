"""`bigchem serve`: a web page (Gradio) with the model's tasks, k-best lists and drawings of molecules.

Requests are untrusted: their cost is bounded, and no answer names a folder.
"""

import errno
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError
from bigchem.base.installed.packages import install_extra
from bigchem.base.printable import printable
from bigchem.base.progress import Progress
from bigchem.chemistry import REPAIRS, NotationError, read
from bigchem.config import EvaluateConfig
from bigchem.evaluate.generation.label_scores import has_labels, most_probable
from bigchem.evaluate.generation.predictor import Prediction, Predictor
from bigchem.evaluate.serve.drawing import Artist, Drawing
from bigchem.evaluate.serve.example_inputs import example_input
from bigchem.tasks import CHEMISTRY, Task, Tasks

MOST_CHARACTERS = 4000
"""Characters of an input: ten times a paragraph of a procedure. The model sees its first 512 tokens."""
MOST_BEAMS, MOST_SHOWN, MOST_TOKENS = 20, 10, 256
LIMIT_S = 120.0
"""Time limit of a prediction."""
AT_ONCE, WAITING = 4, 32
"""Concurrent requests, so that a slow one does not block the next; and the length of the queue."""
_COPY = (
    "navigator.clipboard.writeText(this.dataset.text).then(() => {this.textContent = 'copied'}, "
    "() => {this.textContent = 'select and copy'})"
)
"""Script of a copy button: the text is the button's data, never part of the script."""


def examples(tasks: Tasks) -> list[list[str]]:
    """[task, an input of it] for each task that the page can take from one text."""
    return [[task.name, text] for task in tasks.values() if (text := example_input(task)) is not None]


def listing(task: Task, predictions: Sequence[Prediction], drawings: Sequence[Drawing] = ()) -> str:
    """HTML: the predictions, best first, with their log-probability, a copy button, and drawings of molecules."""
    chemistry = task.target_domain in CHEMISTRY
    items = []
    for number, prediction in enumerate(predictions):
        text = escape(printable(prediction.text), quote=True)
        caption = f"log p {prediction.log_probability:.2f}, {prediction.score:.3f} per token"
        if chemistry:
            caption += ", valid SMILES" if prediction.valid else ", not a valid SMILES"
        copied = escape(prediction.text, quote=True)
        button = f'<button class="copy" data-text="{copied}" onclick="{_COPY}">copy</button>'
        figure = drawings[number].svg if number < len(drawings) else ""
        shown = f'<code style="overflow-wrap: anywhere; white-space: pre-wrap">{text}</code>'
        items.append(f'<li class="prediction">{shown} {button}<br><small>{caption}</small><br>{figure}</li>')
    return f"<ol>{''.join(items)}</ol>"


def label_table(task: Task, scores: Sequence[float]) -> str:
    """HTML: the probabilities of the labels of one input."""
    head = "probability" if task.target_domain == "label" else "probability of 1"
    cells = [(escape(printable(name)), f"{share:.3f}") for name, share in most_probable(task, scores).items()]
    rows = "".join(f"<tr><td>{name}</td><td>{share}</td></tr>" for name, share in cells)
    return f'<table class="labels"><tr><th>label</th><th>{head}</th></tr>{rows}</table>'


def answer(predictor: Predictor, artist: Artist, task: str, text: str, beams: float, shown: float) -> tuple[str, str]:
    """HTML of the input's drawing, if it is a molecule, and of its predictions, or of why there are none.

    Accepts anything: inputs or molecules that are too large, unknown tasks, numbers out of range.
    """
    text = text.strip() if isinstance(text, str) else ""
    if not text or task not in predictor.tasks:
        return "", _paragraph("Give an input, or choose an example.")
    if len(text) > MOST_CHARACTERS:
        return "", _paragraph(f"{len(text):,} characters: the limit is {MOST_CHARACTERS:,}.")
    about = predictor.tasks[task]
    chemistry = about.source_domain in CHEMISTRY
    try:
        reading = read(text, about.source_domain, names=True)
    except NotationError as error:
        return "", _paragraph(f"{'Not SMILES' if chemistry else 'Not a text'}: {error}.")
    given = "".join(_paragraph(f"{REPAIRS[name]}: {reading.text}") for name in reading.repairs)
    if chemistry:
        (own,) = artist.draw([reading.text])
        given += own.svg or _paragraph(own.why)
    count = _between(shown, MOST_SHOWN)
    config = EvaluateConfig(
        num_beams=max(_between(beams, MOST_BEAMS), count), num_return=count, max_new_tokens=MOST_TOKENS
    )
    try:
        (predictions,) = predictor.predict(task, [reading.text], config, deadline=time.monotonic() + LIMIT_S)
        scores = predictor.label_scores(task, [reading.text], config) if has_labels(about) else []
    except TimeoutError:
        return given, _paragraph(f"No answer within {LIMIT_S:.0f} s: try fewer beams, or a shorter input.")
    except Exception:  # the message may name folders: only the server's log gets it
        traceback.print_exc(file=sys.stderr)
        return given, _paragraph("The prediction failed; the server's log says why.")
    chemistry = about.target_domain in CHEMISTRY
    drawings = artist.draw([prediction.text for prediction in predictions]) if chemistry else []
    return given, listing(about, predictions, drawings) + "".join(label_table(about, own) for own in scores)


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _between(value: object, limit: int) -> int:
    """A slider's number, clamped to 1 .. limit; 1 if it is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= limit:
        return limit if isinstance(value, int | float) and value > limit else 1
    return int(value)


def name_of(model_dir: Path) -> str:
    """The model's name on the page: its folder's or its run's, never a path."""
    folder = model_dir.resolve()
    return printable(folder.parent.name if folder.name == "model" else folder.name, limit=80)


def build(predictor: Predictor) -> Any:
    """The page, a gradio.Blocks. UserError if gradio is not installed."""
    gradio, artist, tasks = _gradio(), Artist(), predictor.tasks

    def on_click(task: str, text: str, beams: float, shown: float) -> tuple[str, str]:
        return answer(predictor, artist, task, text, beams, shown)

    with gradio.Blocks(title="bigchem", analytics_enabled=False) as page:
        name = escape(name_of(predictor.model_dir))
        gradio.HTML(f"<h1>bigchem</h1><p><code>{name}</code>. Predictions of a language model: check before use.</p>")
        with gradio.Row():
            with gradio.Column():
                task = gradio.Dropdown(list(tasks), value=next(iter(tasks)), label="task")
                text = gradio.Textbox(label="SMILES or text", lines=3, max_length=MOST_CHARACTERS, elem_id="source")
                with gradio.Row():
                    beams = gradio.Slider(1, MOST_BEAMS, value=5, step=1, label="beams")
                    shown = gradio.Slider(1, MOST_SHOWN, value=3, step=1, label="predictions")
                button = gradio.Button("predict", variant="primary", elem_id="predict")
                gradio.Examples(examples(tasks), [task, text])
            with gradio.Column():
                given = gradio.HTML(label="input", elem_id="given")
                made = gradio.HTML(label="predictions", elem_id="made")
        button.click(on_click, [task, text, beams, shown], [given, made], concurrency_limit=AT_ONCE)
    page.queue(max_size=WAITING)
    return page


def check(host: str, port: int) -> None:
    """Before a model is loaded: UserError if gradio is not installed or the port is not available."""
    _gradio()
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address[:2], family=family):  # type: ignore[arg-type]
            pass
    except OSError as error:
        hint = "choose another --port" if error.errno == errno.EADDRINUSE else "choose another --host or --port"
        raise UserError(f"cannot listen: {error.strerror}", f"{host}:{port}", hint) from None


def serve(model_dir: Path, host: str, port: int, progress: Progress) -> None:
    """Serves the page until interrupted; reports its address once the model is loaded."""
    page = build(Predictor(model_dir))
    progress.say(f"{model_dir}: http://{host}:{port}, until interrupted")
    page.launch(server_name=host, server_port=port, share=False, quiet=True, max_file_size=1)


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        what = f"needs the optional package {error.name}" if missing else f"gradio cannot be imported: {error}"
        raise UserError(what, "serve", install_extra("serve")) from None
    return gradio
