"""The model card of an exported model, for the Hugging Face hub and for anyone who finds the folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem.base import json_file, jsonl
from bigchem.base.json_file import RecordError
from bigchem.base.printable import printable
from bigchem.tasks import Tasks
from bigchem.train.checkpoint.store import Manifest

HEAD = """---
library_name: transformers
tags: [t5, chemistry, bigchem]
---
"""


@dataclass(frozen=True)
class _Scored:
    task: str
    metric: str
    value: float | None
    n: int | None = None


@dataclass(frozen=True)
class _Results:
    step: int
    split: str
    metrics: list[_Scored]


def card(proof: str, name: str, manifest: Manifest, run_dir: Path, tasks: Tasks) -> str:
    """README.md: use, prompts, origin, metrics and proof. tasks: those it was trained on."""
    prompts = "\n".join(
        f"| {task.name} | {task.source_domain} -> {task.target_domain} | `{prompt.removesuffix('{source}')}` |"
        for task in tasks.values()
        for prompt in task.prompts
    )
    first = next(iter(tasks.values()))
    asked = first.prompted("...", dict.fromkeys(first.fields, "..."))
    use = (
        "```python\nfrom transformers import AutoTokenizer, T5ForConditionalGeneration\n\n"
        f'model = T5ForConditionalGeneration.from_pretrained("{name}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        f'source = tokenizer({json.dumps(asked, ensure_ascii=False)}, return_tensors="pt")\n'
        "output = model.generate(**source, num_beams=5)\n"
        "print(tokenizer.decode(output[0], skip_special_tokens=True))\n```"
    )
    return (
        f"{HEAD}# {run_dir.name}\n\nA T5 for chemistry and language, trained by bigchem for {manifest.step} steps "
        f"({manifest.position} examples, {manifest.tokens} tokens) on data `{manifest.data_fingerprint}`.\n\n"
        f"## Use\n\nThe prompt of the task, then the text, or the text where the prompt has `{{source}}`:\n\n"
        f"| task | domains | prompt |\n|---|---|---|\n{prompts}\n\n{use}\n\n"
        f"## Metrics\n\n{_metrics(manifest, run_dir)}\n\n"
        f"## Proof\n\nProbe batch: {proof.partition(': ')[2]}\n"
    )


def _metrics(manifest: Manifest, run_dir: Path) -> str:
    """The run folder's losses at this step, and its scores if it was evaluated."""
    row = _row(run_dir / "metrics.jsonl", manifest.step)
    losses = {key: json_file.number(value) for key, value in row.items() if key.split("/")[0] in ("loss", "valid_loss")}
    lines = [f"| {_label(key)} | {value:.4f} |" for key, value in losses.items() if value is not None]
    results = _results(run_dir / "results" / "results.json")
    if results is not None and results.step == manifest.step:
        scores = [score for score in results.metrics if score.value is not None]
        for s in scores:
            examples = "" if s.n is None else f", n = {s.n:,}"
            lines.append(f"| {s.task}, {s.metric} ({results.split}{examples}) | {s.value:.4g} |")
    if not lines:
        return "None were recorded at this step."
    return "\n".join(["| | at this step |", "|---|---|", *lines])


def _label(key: str) -> str:
    name, _, task = key.partition("/")
    kind = "validation loss" if name == "valid_loss" else "training loss"
    return f"{kind}, {printable(task)}" if task else kind


def _row(path: Path, step: int) -> dict[str, Any]:
    """The last row of a step, which a restart may have repeated."""
    found: dict[str, Any] = {}
    for line in jsonl.lines(path, {"step": int}):
        if line.row is not None and line.row["step"] == step:
            found = line.row
    return found


def _results(path: Path) -> _Results | None:
    """The part of results.json that the card shows; None if it is missing or damaged."""
    try:
        return json_file.as_kind(_Results, json_file.load(path), str(path))
    except (OSError, RecordError):
        return None
