"""A made-up sweep of tasks that do not ship: a number, a label, a text, and one with a package's metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from planted_sweep import SIZES, write_result

RECORDS: dict[str, dict[str, Any]] = {
    "solubility": {"source": "chemistry", "target": "number", "prompt": "Solubility: ", "decimals": 2},
    "toxic": {"source": "chemistry", "target": "label", "prompt": "Toxic? ", "labels": ["no", "yes"]},
    "conditions": {"source": "reaction", "target": "text", "prompt": "Conditions: "},
    "title": {"source": "text", "target": "text", "metrics": ["exact", "fluency"], "headline": "fluency"},
}
METRICS = {
    "solubility": [("valid_numbers", 0.9, None), ("rmse", 1.5, None), ("spearman", -0.1, None)],
    "toxic": [("valid_labels", 1.0, None), ("accuracy", 0.6, None), ("roc_auc", 0.7, None)],
    "conditions": [("rougeL", 0.3, True)],
    "title": [("exact", 0.1, True), ("fluency", 40.0, False)],
}
LOWER = ("rmse", "fluency", "loss")
"""fluency: as a perplexity."""


def results_of(parameters: int, mixture: tuple[str, ...]) -> dict[str, Any]:
    """The content of one results.json. Sharing helps everywhere; a decade of size is worth a tenth."""
    place = SIZES.index(parameters)
    metrics = []
    for task in mixture:
        for metric, value, higher in [*METRICS[task], ("loss", 2.0, None)]:
            better = 0.1 * place * abs(value) + (0.05 * abs(value) if len(mixture) > 1 else 0.0)
            found = value - better if metric in LOWER else value + better
            row = {"task": task, "metric": metric, "value": found, "low": found - 0.001, "high": found + 0.001}
            row |= {"n": 50, "definition": f"{metric}/v1", "note": ""}
            metrics.append(row if higher is None else row | {"higher_is_better": higher})
    return {
        "schema": 1,
        "run": f"{parameters}-{'all' if len(mixture) > 1 else mixture[0]}",
        "model": {"preset": "p", "parameters": parameters, "sha256": "ab"},
        "mixture": dict.fromkeys(mixture, 1.0),
        "seed": 0,
        "step": 3,
        "tokens": 9,
        "data_fingerprint": "f",
        "split": "test",
        "decoding": {"num_beams": 1},
        "protocol": "bigchem",
        "metrics": metrics,
        "tasks": {task: RECORDS[task] for task in mixture},
    }


def write_sweep(folder: Path, sizes: tuple[int, ...] = SIZES) -> Path:
    """All tasks together, and each alone, at every size."""
    for size in sizes:
        for mixture in (tuple(RECORDS), *((task,) for task in RECORDS)):
            write_result(folder, results_of(size, mixture))
    return folder
