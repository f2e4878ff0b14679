"""`bigchem serve`: a web page (Gradio) with the model's tasks, k-best lists and drawings of molecules.

Requests are untrusted: their cost is bounded, and no answer names a folder.
"""

import errno
import socket
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from bigchem.base.errors import UserError
from bigchem.base.installed.packages import install_extra
from bigchem.base.printable import printable
from bigchem.base.progress import Progress
from bigchem.chemistry import REPAIRS, sections
from bigchem.evaluate.generation.label_scores import most_probable
from bigchem.evaluate.generation.predictor import Prediction, Predictor
from bigchem.evaluate.serve.api import application
from bigchem.evaluate.serve.asking import (
    AT_ONCE,
    MOST_BEAMS,
    MOST_CHARACTERS,
    MOST_SHOWN,
    WAITING,
    RefusedError,
    predict,
    read_source,
)
from bigchem.evaluate.serve.drawing import Artist, Drawing
from bigchem.evaluate.serve.example_inputs import example_input
from bigchem.tasks import CHEMISTRY, Task, Tasks

_COPY = (
    "navigator.clipboard.writeText(this.dataset.text).then(() => {this.textContent = 'copied'}, "
    "() => {this.textContent = 'select and copy'})"
)
"""Script of a copy button: the text is the button's data, never part of the script."""


_STYLE = "<style>#given svg, #made svg {max-width: 100%; height: auto}</style>"
"""Reactions are wider than a column."""


def askable(tasks: Tasks) -> list[str]:
    """The tasks whose prompts take one text: the page has one field. The API takes the others, too."""
    return [task.name for task in tasks.values() if not task.fields]


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


def figures(task: Task, source: str, predictions: Sequence[Prediction]) -> list[str]:
    """What to draw beside each prediction: the whole reaction where the source is one side of it. Empty: nothing."""
    texts = [prediction.text for prediction in predictions]
    match task.source_domain, task.target_domain:
        case "reactants", "chemistry":
            return [f"{source}>>{text}" for text in texts]
        case "chemistry", "reactants":
            return [f"{text}>>{source}" for text in texts]
        case "reaction", "reagents":
            reactants, _, product = sections(source)
            return [f"{reactants}>{text}>{product}" for text in texts]
        case _, target if target in CHEMISTRY:
            return texts
    return []


def answer(predictor: Predictor, artist: Artist, task: str, text: str, beams: float, shown: float) -> tuple[str, str]:
    """HTML of the input's drawing, if it is a molecule or a reaction, and of its predictions, or of why there are none.

    Accepts anything: inputs or molecules that are too large, unknown tasks, numbers out of range.
    """
    text = text.strip() if isinstance(text, str) else ""
    if not text or task not in askable(predictor.tasks):
        return "", _paragraph("Give an input, or choose an example.")
    about, given = predictor.tasks[task], ""
    try:
        reading = read_source(about, text)
        given = "".join(_paragraph(f"{REPAIRS[name]}: {reading.text}") for name in reading.repairs)
        if about.source_domain in CHEMISTRY:
            (own,) = artist.draw([reading.text])
            given += own.svg or _paragraph(own.why)
        record = {"source": reading.text}
        (best,), scores = predict(predictor, about, [record], _between(beams, MOST_BEAMS), _between(shown, MOST_SHOWN))
    except RefusedError as error:
        return given, _paragraph(str(error))
    drawings = artist.draw(figures(about, reading.text, best))
    return given, listing(about, best, drawings) + "".join(label_table(about, own) for own in scores)


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
    gradio, artist, tasks = _gradio(), Artist(), askable(predictor.tasks)

    def on_click(task: str, text: str, beams: float, shown: float) -> tuple[str, str]:
        return answer(predictor, artist, task, text, beams, shown)

    with gradio.Blocks(title="bigchem", analytics_enabled=False) as page:
        name = escape(name_of(predictor.model_dir))
        gradio.HTML(f"{_STYLE}<h1>bigchem</h1><p><code>{name}</code>. Predictions of a language model: check them.</p>")
        with gradio.Row():
            with gradio.Column():
                task = gradio.Dropdown(tasks, value=next(iter(tasks), None), label="task")
                text = gradio.Textbox(label="SMILES or text", lines=3, max_length=MOST_CHARACTERS, elem_id="source")
                with gradio.Row():
                    beams = gradio.Slider(1, MOST_BEAMS, value=5, step=1, label="beams")
                    shown = gradio.Slider(1, MOST_SHOWN, value=3, step=1, label="predictions")
                button = gradio.Button("predict", variant="primary", elem_id="predict")
                gradio.Examples(examples(predictor.tasks), [task, text])
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
    """Serves the page and the API until interrupted; reports their address once the model is loaded. Nothing is shared
    through gradio's servers, and no file is taken or given."""
    gradio = _gradio()
    import uvicorn

    predictor = Predictor(model_dir)
    app = gradio.mount_gradio_app(
        *(application(predictor), build(predictor), "/"),
        show_error=False,
        max_file_size=1,
        ssr_mode=False,
        footer_links=[],
    )
    progress.say(f"{model_dir}: http://{host}:{port}, API at /predict and /tasks, until interrupted")
    uvicorn.run(app, host=host, port=port, log_level="warning")


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        what = f"needs the optional package {error.name}" if missing else f"gradio cannot be imported: {error}"
        raise UserError(what, "serve", install_extra("serve")) from None
    return gradio
