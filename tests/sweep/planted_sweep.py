"""A made-up sweep with known slopes: result files as `bigchem evaluate` writes them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

SIZES = (204_800, 1_034_240, 5_242_880)
# Per metric: the alone model's value at the first size, its rise per decade; the gain at the first size, its slope.
PLANTED = {
    ("captioning", "bleu4"): None,
    ("captioning", "bleu4_words"): (0.20, 0.12, 0.010, 0.030),
    ("captioning", "loss"): (2.10, -0.40, 0.050, 0.020),
    ("generation", "exact"): (0.05, 0.10, 0.015, 0.020),
    ("generation", "levenshtein"): (30.0, -6.0, 1.000, 0.800),
    ("generation", "loss"): (1.60, -0.35, 0.020, 0.030),
    ("forward", "top1"): (0.30, 0.20, -0.040, 0.000),
    ("forward", "loss"): (1.10, -0.30, -0.010, 0.010),
    ("retrosynthesis", "top1"): (0.10, 0.13, 0.020, -0.025),
    ("retrosynthesis", "loss"): (1.50, -0.25, 0.000, 0.000),
    ("actions", "bleu2"): (0.40, 0.10, 0.030, 0.005),
    ("actions", "loss"): (1.30, -0.30, 0.040, 0.000),
}
TASKS = tuple(dict.fromkeys(task for task, _ in PLANTED))
LOWER = ("loss", "levenshtein")
TRAINING: dict[str, Any] = {
    "tokenizer": "t" * 16,
    "steps": 300,
    "steps_done": 300,
    "early": None,
    "global_tokens": 4000,
    "examples": {"captioning": 3000, "forward": 3000},
    "tokens": {"captioning": 240_000, "forward": 960_000},
    "flops": 1e12,
    "lr": 1e-3,
    "schedule": {"kind": "cosine", "warmup_steps": 25, "final": 0.1, "decay_steps": 0},
    "optimizer": "adamw",
    "dropout": 0.0,
    "init_from": None,
    "sweep": None,
}


def planted_value(task: str, metric: str, parameters: int, together: bool) -> float | None:
    """The value without noise."""
    planted = PLANTED[task, metric]
    if planted is None:
        return None
    start, rise, gain, slope = planted
    decades = math.log10(parameters / SIZES[0])
    value = start + rise * decades
    if together:
        value += (gain + slope * decades) * (-1 if metric in LOWER else 1)
    return value


def results_of(parameters: int, mixture: tuple[str, ...], seed: int = 0, noise: float = 0.0) -> dict[str, Any]:
    """The content of one results.json."""
    metrics = []
    for number, (task, metric) in enumerate(PLANTED):
        if task not in mixture:
            continue
        value = planted_value(task, metric, parameters, len(mixture) > 1)
        margin = None if value is None else 0.02 * abs(value)
        if value is not None:
            value += noise * abs(value) * math.sin(12.9898 * (parameters % 977 + 31 * seed + 7 * number + len(mixture)))
        metrics.append(
            {
                "task": task,
                "metric": metric,
                "value": value,
                "low": None if value is None else value - margin,
                "high": None if value is None else value + margin,
                "n": 300,
                "definition": f"{metric}/v1",
                "note": "" if value is not None else "SciBERT's vocabulary is not installed",
            }
        )
    name = "all" if len(mixture) > 1 else mixture[0]
    return {
        "schema": 1,
        "run": f"sweep-{parameters}-{name}-s{seed}",
        "model": {"preset": f"sweep-{parameters}", "parameters": parameters, "sha256": "ab" * 32},
        "mixture": dict.fromkeys(mixture, 1.0),
        "seed": seed,
        "step": 300,
        "tokens": 1_200_000 if len(mixture) > 1 else 240_000,
        "data_fingerprint": "f" * 16,
        "split": "test",
        "decoding": {"num_beams": 1, "max_new_tokens": 128},
        "protocol": "bigchem/v1",
        "metrics": metrics,
    }


def write_result(folder: Path, content: dict[str, Any]) -> Path:
    """Writes one results.json below folder, in its own run folder."""
    file = folder / content["run"] / "results" / "results.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def write_sweep(
    folder: Path,
    sizes: tuple[int, ...] = SIZES,
    seeds: tuple[int, ...] = (0,),
    noise: float = 0.0,
    alone: tuple[str, ...] = TASKS,
) -> Path:
    """Writes results for every size: all tasks together, and each task in `alone` alone."""
    for parameters in sizes:
        for seed in seeds:
            write_result(folder, results_of(parameters, TASKS, seed, noise))
            for task in alone:
                write_result(folder, results_of(parameters, (task,), seed, noise))
    return folder


def write_predictions(file: Path, right: list[bool]) -> Path:
    """Writes predictions of reactions, right or wrong as stated."""
    rows = [
        {"source": f"{'C' * (n + 1)}O.O", "target": "C" * (n + 2), "predictions": ["C" * (n + 2) if ok else "CCN"]}
        for n, ok in enumerate(right)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
