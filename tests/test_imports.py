"""Imports run one way, from the top floor down; pure modules import neither torch nor deepspeed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"cli", "cli_cluster", "cli_data", "cli_evaluate", "cli_runs", "cli_sweep", "demo"},
    {"sweep"},
    {"launch", "export"},
    {"train", "evaluate"},
    {"data", "plan", "ds_config"},
    {"chemistry"},
    {"model", "config"},
    {
        "tasks",
        "errors",
        "strict",
        "jsonfile",
        "kinds",
        "shipped",
        "progress",
        "program",
        "environment",
        "records",
        "jsonl",
        "printable",
        "masking",
    },
]
"""From the top down. A module may import from its own floor and from those below.

evaluate reads train's checkpoints, launch uses export: their floors are shared.
"""
PURE = [
    *("data.mixture", "data.order", "data.batches", "data.spans", "data.ragged", "chemistry"),
    *("model.presets", "model.flops", "sweep.tables", "tasks"),
    *("launch.rendezvous", "launch.findings", "launch.diagnosis", "launch.slurm.options", "launch.slurm.remedies"),
    *(
        "evaluate.text",
        "evaluate.molecules",
        "evaluate.reactions",
        "evaluate.actions",
        "train.schedule",
        "train.metrics",
        *("plan.setup", "plan.states", "plan.buffers", "plan.activations", "plan.memory", "plan.worst"),
        *("plan.traffic", "plan.hardware", "plan.speed", "plan.choices", "plan.table", "model.parameters"),
        "train.health",
        "train.lifecycle",
        "train.clock",
    ),
]
LIGHT = [
    *("cli", "cli_data", "cli_runs", "cli_sweep", "config", "data.plan", "data.preview", "data.build", "data.verify"),
    *(
        "data.audit",
        "cli_evaluate",
        "launch.status",
        "launch.cluster",
        "launch.dryrun",
        "launch.submit",
        "launch.cancel",
        "launch.logs",
        "launch.rollcall",
        "launch.doctor",
        "launch.doctor_job",
    ),
    *("launch.planning", "launch.calibration", "launch.locally"),
    *("launch.build", "launch.sweeps", "sweep.grid", "sweep.outcome"),
    *(
        "train.checkpoint",
        "train.initial",
        "model.hf_config",
        "model.weight_files",
        "ds_config",
        "ds_config.by_deepspeed",
        "train.best",
        "train.board",
    ),
]
"""What `--help`, `status` and `submit --dry-run` need: quick only without torch."""


def modules() -> list[Path]:
    return [p for p in (ROOT / "bigchem").rglob("*.py") if p.parent.name != "_shipped"]


def floor(name: str) -> int:
    part = name.split(".")[1] if "." in name else name
    return next(i for i, floor in enumerate(FLOORS) if part in floor)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "bigchem":
            found.update(
                f"{node.module}.{a.name}" if is_module(f"{node.module}.{a.name}") else node.module for a in node.names
            )
        elif isinstance(node, ast.Import):
            found.update(a.name for a in node.names if a.name.startswith("bigchem."))
    return {name for name in found if name != "bigchem.__version__"}


def test_imports_run_one_way() -> None:
    wrong = []
    for path in modules():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if name == "bigchem":
            continue
        wrong += [f"{name} imports {other}" for other in imported(path) if floor(other) < floor(name)]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not even inside functions."""
    known = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in modules()}
    left = {name: {module_of(other, known) for other in imported(path)} - {name} for name, path in known.items()}
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]
    assert not left


def module_of(name: str, known: dict[str, Path]) -> str:
    return name if name in known else name.rpartition(".")[0]


def test_every_module_has_a_floor() -> None:
    for path in modules():
        if path.name != "__init__.py":
            floor(".".join(path.relative_to(ROOT).with_suffix("").parts))


@pytest.mark.parametrize("name", PURE + LIGHT)
def test_module_imports_neither_torch_nor_deepspeed(name: str) -> None:
    code = f"import sys, bigchem.{name}; print([m for m in ('torch', 'deepspeed') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
