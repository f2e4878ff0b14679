"""Imports run one way: no circle among rooms or modules at any level; every room has a front door; `--help` is light.

Static, but for two processes: the imports are read from the source.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    "bench",
    "cli",
    "show",
    "sweep",
    "launch",
    "export",
    "sharing",
    "evaluate",
    "train",
    "run",
    "plan",
    "ds_config",
    "data",
]
LAYERS += ["chemistry", "model", "config", "tasks", "base"]
"""From the top down. A module imports from its own layer and from those below. `cli` finds benches by name."""

HEAVY = {"torch", "deepspeed", "transformers"}
PURE = [
    *("chemistry", "data.order", "data.ragged", "evaluate.metrics", "launch.slurm.options", "launch.slurm.remedies"),
    *("launch.rendezvous.environment", "launch.doctor.facts", "launch.doctor.checks", "model.presets", "model.flops"),
    *("model.parameters", "plan", "run.lifecycle", "sweep.analysis", "sweep.report.tables", "tasks"),
    *("train.health.step_guard", "train.health.time_limit", "train.logging.schema", "train.schedule"),
]
"""Arithmetic that needs neither torch nor a GPU, and is tested without them."""

LIGHT = [
    *("cli.main", "cli.data", "cli.runs", "cli.evaluate", "cli.sweep", "config", "ds_config", "ds_config.by_deepspeed"),
    *("data.build.pipeline", "data.inspect.audit", "data.inspect.preview", "data.step_plan", "data.storage.verify"),
    *("launch.cancel", "launch.cluster.local", "launch.cluster.profile", "launch.dry_run", "launch.submit"),
    *("launch.doctor.job", "launch.doctor.machine", "launch.rendezvous.meeting"),
    *("launch.runs.logs", "launch.runs.status", "launch.workloads.build", "launch.workloads.calibrate"),
    *("launch.workloads.sweep", "model.weights.files", "model.weights.hf_config", "plan.from_config"),
    *("sweep.grid", "sweep.outcome", "train.checkpoint.best", "train.checkpoint.store", "train.compiling"),
    *("train.initial", "train.logging.tensorboard"),
]
"""What `--help`, `status` and `submit --dry-run` need: quick only without torch."""

ON_A_BARE_GPU_MACHINE = [
    *(f"bench.model.{name}" for name in ("attention", "kernels", "pieces", "tiles", "train_step")),
    *(f"bench.gpu_check.{name}" for name in ("check", "stage", "basics", "step_profile", "comparisons")),
]
"""Benchmarks for machines that have torch, triton and transformers, and to which a checkout is carried."""
CARRIED_THERE = {"numpy", "packaging", "rich", "torch", "transformers", "triton", "typer"}


@cache
def modules() -> dict[str, Path]:
    """Every module and package of bigchem, by its full name."""
    files = [p for p in (ROOT / "bigchem").rglob("*.py") if "_shipped" not in p.parts]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in files}


@cache
def imported(path: Path, *, lazily: bool = True) -> frozenset[str]:
    """Modules of bigchem, and names of others, that a file imports. lazily: inside functions as well."""
    tree = ast.parse(path.read_text())
    typing_only = {id(n) for block in ast.walk(tree) if _is_typing_only(block) for n in ast.walk(block)}
    nodes = ast.walk(tree) if lazily else _at_import(tree)
    found = set()
    for node in nodes:
        if not lazily and id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules() else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(found - {"bigchem"})


def _is_typing_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _at_import(node: ast.AST) -> list[ast.AST]:
    """Nodes that run when the module is imported: not those in functions."""
    found = []
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            found += [child, *_at_import(child)]
    return found


@cache
def loads(name: str) -> frozenset[str]:
    """All that importing a module imports: of bigchem, with its packages, and top-level names of others."""
    left, found = [name], set()
    while left:
        module = left.pop()
        parts = module.split(".")
        for known in (".".join(parts[:n]) for n in range(1, len(parts) + 1)):
            if known in modules() and known not in found:
                found.add(known)
                left += imported(modules()[known], lazily=False)
        if parts[0] != "bigchem":
            found.add(parts[0])
    return frozenset(found)


def circle(graph: dict[str, set[str]]) -> set[str]:
    """What is left of a graph when nodes that need no other are taken away again and again."""
    left = {node: needed - {node} for node, needed in graph.items()}
    while free := [node for node, needed in left.items() if not needed & left.keys()]:
        for node in free:
            del left[node]
    return set(left)


def layer(name: str) -> int:
    return LAYERS.index(name.split(".")[1])


def test_imports_run_from_upper_layers_to_lower_ones() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, path in modules().items()
        for other in imported(path)
        if name not in ("bigchem", "bigchem.__main__") and other in modules() and layer(other) < layer(name)
    ]
    assert not wrong


def test_no_two_rooms_and_no_two_modules_import_each_other_at_any_level() -> None:
    """Neither directly nor around a circle, not even inside functions: siblings form a graph without circles."""
    folders: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, path in modules().items():
        for other in imported(path) & modules().keys():
            ours, theirs = name.split("."), other.split(".")
            common = next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
            if common is not None:
                folders[".".join(ours[:common])][ours[common]].add(theirs[common])
    assert len(folders) > 20
    assert {folder: found for folder, graph in folders.items() if (found := circle(graph))} == {}


def test_the_circle_test_finds_a_circle() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == {"a", "b", "c"}
    assert circle({"a": {"b"}, "b": set()}) == set()


ROOMS = sorted(name for name, path in modules().items() if path.name == "__init__.py" and name != "bigchem")


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_docstring_names_what_is_imported_from_outside(room: str) -> None:
    programs = [*(ROOT / "tools").glob("*.py"), *(ROOT / "slurm").rglob("*.py")]
    outside = [imported(p) for name, p in modules().items() if name != room and not name.startswith(f"{room}.")]
    used = frozenset[str]().union(*outside, *map(imported, programs))
    inner = {name.removeprefix(f"{room}.").split(".")[0] for name in used if name.startswith(f"{room}.")}
    files = {name for name in inner if modules()[f"{room}.{name}"].name != "__init__.py"}
    docstring = ast.get_docstring(ast.parse(modules()[room].read_text())) or ""
    stated = re.search(r"Imported from outside: ([^.]*)\.", docstring)
    assert stated, f"{room} does not say what may be imported from outside"
    names = {name.strip() for name in stated[1].split(",")}
    assert names - {"this package", "nothing"} == files
    assert ("this package" in names) == (room in used)


@pytest.mark.parametrize("folder", [ROOT / room.replace(".", "/") for room in ROOMS], ids=ROOMS)
def test_no_room_has_more_than_about_a_dozen_files_side_by_side(folder: Path) -> None:
    assert len([p for p in folder.glob("*.py") if p.name != "__init__.py"]) <= 13


def test_the_static_graph_is_what_python_imports() -> None:
    """The tests of light and pure modules trust it: checked against one real import."""
    code = "import sys, bigchem.cli.main; print(*(m for m in sys.modules if m.startswith('bigchem')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {name for name in loads("bigchem.cli.main") if name.startswith("bigchem")}


@pytest.mark.parametrize("name", PURE + LIGHT)
def test_importing_the_module_imports_neither_torch_nor_deepspeed_nor_transformers(name: str) -> None:
    inner = [m for m in modules() if m == f"bigchem.{name}" or (name in PURE and m.startswith(f"bigchem.{name}."))]
    assert inner
    assert {m: found for m in inner if (found := loads(m) & HEAVY)} == {}


@pytest.mark.parametrize("name", ON_A_BARE_GPU_MACHINE)
def test_the_models_benchmarks_import_only_what_a_bare_gpu_machine_has(name: str) -> None:
    others = {top for top in loads(f"bigchem.{name}") if not top.startswith("bigchem")}
    assert others - sys.stdlib_module_names - CARRIED_THERE == set()


def test_no_library_that_light_modules_import_brings_torch() -> None:
    """What the static test cannot see: a library below them that imports torch by itself."""
    names = ", ".join(f"bigchem.{name}" for name in LIGHT)
    code = f"import sys, {names}; print(*({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
