"""`bigchem serve`: a small web page (Gradio): five tasks, k-best lists, molecules drawn by RDKit."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from rdkit.Chem.Draw import rdMolDraw2D

from bigchem.chemistry import dotted, try_parse
from bigchem.config import EvaluateConfig
from bigchem.errors import UserError
from bigchem.evaluate.predictor import Prediction, Predictor
from bigchem.progress import Progress
from bigchem.tasks import TASK_NAMES, TASKS

EXAMPLES = [
    ["captioning", "CC(=O)Oc1ccccc1C(=O)O"],
    ["generation", "The molecule is a primary alcohol that is ethanol in which one hydrogen is replaced by phenyl."],
    ["forward", "CC(=O)Cl.NCc1ccccc1"],
    ["retrosynthesis", "CC(=O)NCc1ccccc1"],
    ["actions", "The mixture was stirred for 2 h, then washed with brine and dried over sodium sulfate."],
]
"""An input of each task, for a click."""
_COPY = (
    "navigator.clipboard.writeText(this.dataset.text).then(() => {this.textContent = 'copied'}, "
    "() => {this.textContent = 'select and copy'})"
)
"""What a copy button does: the text is data of the button, never a part of the script."""


def drawing(smiles: str, width: int = 260, height: int = 180) -> str:
    """An SVG of a molecule, or of several with `.` or `~` between; empty where RDKit does not parse it."""
    molecule = try_parse(dotted(smiles))
    if molecule is None:
        return ""
    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, molecule)
    drawer.FinishDrawing()
    svg: str = drawer.GetDrawingText()
    return svg[svg.index("<svg") :]


def listing(task: str, predictions: Sequence[Prediction]) -> str:
    """HTML: the predictions, best first, with their log-probability, a copy button, and drawings of molecules."""
    chemistry = TASKS[task].target_domain == "chemistry"
    items = []
    for one in predictions:
        text = escape(one.text, quote=True)
        told = f"log p {one.log_probability:.2f}, {one.score:.3f} per token"
        if chemistry:
            told += ", valid SMILES" if one.valid else ", not a valid SMILES"
        button = f'<button class="copy" data-text="{text}" onclick="{_COPY}">copy</button>'
        figure = drawing(one.text) if chemistry else ""
        shown = f'<code style="overflow-wrap: anywhere; white-space: pre-wrap">{text}</code>'
        items.append(f'<li class="prediction">{shown} {button}<br><small>{told}</small><br>{figure}</li>')
    return f"<ol>{''.join(items)}</ol>"


def answer(predictor: Predictor, task: str, text: str, beams: int, shown: int) -> tuple[str, str]:
    """HTML of the input's drawing, where it is a molecule, and of the predictions for it."""
    if not text.strip():
        return "", "<p>Give an input, or choose an example.</p>"
    config = EvaluateConfig(num_beams=max(beams, shown), num_return=shown, max_new_tokens=256)
    (predictions,) = predictor.predict(task, [text.strip()], config)
    given = drawing(text.strip()) if TASKS[task].source_domain == "chemistry" else ""
    if TASKS[task].source_domain == "chemistry" and not given:
        given = "<p>RDKit does not read this input as SMILES.</p>"
    return given, listing(task, predictions)


def build(predictor: Predictor) -> Any:
    """The page, a gradio.Blocks. UserError where gradio is not installed."""
    gradio = _gradio()

    def asked(task: str, text: str, beams: float, shown: float) -> tuple[str, str]:
        return answer(predictor, task, text, int(beams), int(shown))

    with gradio.Blocks(title="bigchem") as page:
        gradio.Markdown(f"# bigchem\n`{predictor.model_dir}`. Predictions of a language model: check before use.")
        with gradio.Row():
            with gradio.Column():
                task = gradio.Dropdown(list(TASK_NAMES), value=TASK_NAMES[0], label="task")
                text = gradio.Textbox(label="SMILES or text", lines=3, elem_id="source")
                with gradio.Row():
                    beams = gradio.Slider(1, 20, value=5, step=1, label="beams")
                    shown = gradio.Slider(1, 10, value=3, step=1, label="predictions")
                button = gradio.Button("predict", variant="primary", elem_id="predict")
                gradio.Examples(EXAMPLES, [task, text])
            with gradio.Column():
                given = gradio.HTML(label="input", elem_id="given")
                made = gradio.HTML(label="predictions", elem_id="made")
        button.click(asked, [task, text, beams, shown], [given, made], concurrency_limit=1)
    return page


def check(host: str, port: int) -> None:
    """UserError, before a model is loaded, where gradio is not installed or the port cannot be had."""
    _gradio()
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.create_server(address[:2], family=family):  # type: ignore[arg-type]
            pass
    except OSError as error:
        hint = "choose another --port" if error.errno == errno.EADDRINUSE else "choose another --host or --port"
        raise UserError(f"cannot listen: {error.strerror}", f"{host}:{port}", hint) from None


def serve(model_dir: Path, host: str, port: int, progress: Progress) -> None:
    """Serves the page until interrupted; its address is told when the model is loaded."""
    page = build(Predictor(model_dir))
    progress.say(f"{model_dir}: http://{host}:{port}, until interrupted")
    page.launch(server_name=host, server_port=port, share=False, quiet=True)


def _gradio() -> Any:
    try:
        import gradio
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        what = f"needs the optional package {error.name}" if missing else f"gradio cannot be imported: {error}"
        raise UserError(what, "serve", "pip install 'bigchem[serve]'") from None
    return gradio
