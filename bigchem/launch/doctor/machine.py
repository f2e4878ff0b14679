"""`bigchem doctor`: what this machine has, and whether processes on it can actually communicate."""

import importlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

import bigchem
from bigchem.base import environment
from bigchem.base.errors import UserError
from bigchem.base.installed import packages
from bigchem.base.printable import markup
from bigchem.config import RunConfig
from bigchem.launch.cluster.local import on_ranks
from bigchem.launch.cluster.profile import ClusterProfile
from bigchem.launch.doctor.facts import Check
from bigchem.launch.fit_check import judge
from bigchem.launch.runs.prepare import absolute, preflight

ALL_REDUCE_TIMEOUT_S = 180
"""Mostly for importing torch and DeepSpeed on a busy machine: the checks before it have read them from the file system,
and no process of the check compiles anything (bigchem/launch/rendezvous/extensions.py)."""
MIN_FREE_GB = 5


def examine(runs: Path, processes: int) -> list[Check]:
    """Every check, in order. processes: of the all-reduce; 0: skip it."""
    checks: dict[str, Callable[[], Check]] = {
        "python": _python,
        "package": _package,
        "torch": _torch,
        "deepspeed": _deepspeed,
        "compiler": _compiler,
        "flash-attn": _flash_attn,
        "optional": _optional,
        "disk": lambda: _disk(runs),
        "slurm": _slurm,
        "sacct": _accounting,
    }
    if processes:  # last: the imports above have brought torch and DeepSpeed into the page cache
        checks["all-reduce"] = lambda: _all_reduce(processes)
    return [guarded(name, check) for name, check in checks.items()]


def of_run(config: RunConfig, profile: ClusterProfile) -> list[Check]:
    """Whether a run fits on the cluster: memory, time and disk, as in `submit --dry-run`. UserError for what submitting
    would refuse."""
    config = absolute(config)
    preflight(config, profile.world_size)
    verdicts = {"ok": "ok", "unknown": "ok", "tight": "warn", "no": "fail"}
    return [Check(f"run: {j.name}", verdicts[j.verdict], j.message) for j in judge(config, profile)]


def table(checks: list[Check]) -> Table:
    """The checks as a table for the terminal."""
    made = Table("check", "verdict", "found", "next", box=None)
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    for check in checks:
        verdict = f"[{colours[check.verdict]}]{check.verdict}[/]"
        made.add_row(markup(check.name), verdict, markup(check.found), markup(check.next))
    return made


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """A check, or if it raises, the finding in one line: the others still run."""
    try:
        return check()
    except UserError as error:
        return Check(
            name, "fail", error.what if error.where is None else f"{error.where}: {error.what}", error.hint or ""
        )
    except ModuleNotFoundError as error:
        return Check(name, "fail", f"{error.name} is not installed", packages.install(str(error.name).split(".")[0]))
    except Exception as error:
        return Check(name, "fail", reason(f"{type(error).__name__}: {error}"), _FAILED.get(name, ""))


_FAILED = {
    "all-reduce": "torchrun --nproc-per-node 2 -m bigchem doctor --job shows each process; --processes 0 skips this"
}
_RAISED = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception|Interrupt|Exit)): (.*(?:\n(?!-|\s*$).*)*)", re.MULTILINE)


def reason(text: str) -> str:
    """What an error says, in one line, without the traceback that submitit puts into its text."""
    _, _, trace = text.partition("Traceback (most recent call last)")
    if found := _RAISED.findall(trace):
        kind, text = found[-1]
        text = text if kind == "UserError" else f"{kind}: {text}"
        return "; ".join(text.splitlines())
    return " ".join(text.strip().splitlines()[:2])


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.machine()}, {os.cpu_count()} cores")


def _package() -> Check:
    found = f"{packages.DISTRIBUTION} {bigchem.__version__}, from {Path(bigchem.__file__).parent}"
    if (clash := packages.clash()) is None:
        return Check("package", "ok", found)
    next_ = f"uninstall both {packages.OTHER} and {packages.DISTRIBUTION}, then install the latter again"
    return Check("package", "warn", f"{found}; {clash}", next_)


def _torch() -> Check:
    import torch

    if not environment.visible_gpus():
        return Check("torch", "ok", f"{torch.__version__}, no GPU: training on the CPU")
    names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    return Check("torch", "ok", f"{torch.__version__}, {torch.cuda.device_count()} x {', '.join(sorted(names))}")


def _deepspeed() -> Check:
    os.environ.setdefault(environment.ACCELERATOR, environment.device().type)
    deepspeed = importlib.import_module("deepspeed")
    return Check("deepspeed", "ok", f"{deepspeed.__version__}, accelerator {os.environ[environment.ACCELERATOR]}")


def _compiler() -> Check:
    """The tools that compile DeepSpeed's CPU Adam when a run with offload first starts. Other runs need neither."""
    found = {name: shutil.which(name) for name in ("g++", "ninja")}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        commands = {"g++": "apt-get install g++, or what your system has", "ninja": packages.install("ninja")}
        next_ = "; ".join(commands[name] for name in missing)
        return Check("compiler", "warn", f"{' and '.join(missing)} not found: needed to offload the optimizer", next_)
    return Check("compiler", "ok", ", ".join(str(path) for path in found.values()))


def _flash_attn() -> Check:
    if not environment.visible_gpus():
        return Check("flash-attn", "ok", "not needed without a GPU")
    found = {name: packages.version_of(name) for name in ("flash-attn", "flash-attn-4")}
    text = ", ".join(f"{name} {version or 'not installed'}" for name, version in found.items())
    if found["flash-attn"] is None:
        text += ": bigchem's own kernels serve all attention"
    if packages.version_of("triton") is None:
        return Check("flash-attn", "warn", f"{text}, but need triton", packages.install_extra("cuda"))
    return Check("flash-attn", "ok", text)


def _optional() -> Check:
    """The optional parts that are not installed, and what installs all of them."""
    names = {extra: re.split(r"[^\w-]", needs[0])[0] for extra, needs in packages.EXTRAS.items() if extra != "cuda"}
    missing = [extra for extra, name in names.items() if packages.version_of(name) is None]
    if not missing:
        return Check("optional", "ok", "all installed")
    words = [word for extra in missing for word in packages.EXTRAS[extra]]
    return Check("optional", "ok", f"not installed: {', '.join(missing)}", f"if needed: {packages.install(*words)}")


def _disk(runs: Path) -> Check:
    """Free space, and the time of a small fsync."""
    folder = runs.resolve()
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    begun = time.monotonic()
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x" * 4096)
        file.flush()
        os.fsync(file.fileno())
    found = f"{folder}: {free:.0f} GB free, fsync {1e3 * (time.monotonic() - begun):.1f} ms"
    if free < MIN_FREE_GB:
        return Check("disk", "warn", found, "checkpoints need 16 bytes per parameter, times `keep` plus one")
    return Check("disk", "ok", found)


def _slurm() -> Check:
    if shutil.which("sbatch") is None:
        return Check("slurm", "ok", "no sbatch here: --cluster local only")
    try:
        up = subprocess.run(["sinfo", "-h", "-o", "%P %D %T"], capture_output=True, text=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return Check("slurm", "warn", "sinfo does not answer within 5 s", "is the controller up?")
    if up.returncode:
        return Check("slurm", "warn", _last_line(up.stderr), "is the controller up?")
    return Check("slurm", "ok", ", ".join(up.stdout.splitlines()[:4]))


def _accounting() -> Check:
    """Checks sacct, the only program that submitit's own job.wait() calls."""
    if shutil.which("sbatch") is None:
        return Check("sacct", "ok", "not needed without Slurm")
    if shutil.which("sacct") is None:
        return Check("sacct", "warn", "not on PATH", "bigchem asks squeue; submitit's own job.wait() never ends")
    question = ["sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", "1"]  # submitit's
    hint = "bigchem asks squeue; submitit's own job.wait() may never end"
    try:
        result = subprocess.run(question, capture_output=True, text=True, timeout=5, check=False)
    except subprocess.TimeoutExpired:
        return Check("sacct", "warn", "does not answer within 5 s", hint)
    if result.returncode:
        return Check("sacct", "warn", _last_line(result.stderr), hint)
    return Check("sacct", "ok", "answers")


def _last_line(errors: str) -> str:
    """What a Slurm program that failed says."""
    return (errors.strip().splitlines() or ["fails"])[-1]


def all_reduce(device: Any) -> str:
    """What each process of the check runs: the same start as training, then a sum over ranks."""
    import torch
    import torch.distributed as dist

    ranks = dist.get_world_size()
    value = torch.tensor([float(dist.get_rank() + 1)], device=device)
    begun = time.monotonic()
    dist.all_reduce(value)
    seconds = time.monotonic() - begun
    expected = ranks * (ranks + 1) / 2
    if float(value) != expected:
        raise ArithmeticError(f"the sum over ranks is {float(value)}, not {expected}")
    return f"{ranks} processes on {device}, {1e3 * seconds:.1f} ms"


def _all_reduce(processes: int) -> Check:
    begun = time.monotonic()
    try:
        found = on_ranks(all_reduce, processes, ALL_REDUCE_TIMEOUT_S / 60, gpus=environment.visible_gpus() > 0)
    except Exception as error:
        if time.monotonic() - begun < ALL_REDUCE_TIMEOUT_S:
            raise
        hint = "is the machine busy, or Python on a slow file system? Repeat it: packages are in memory then"
        raise UserError(f"no result within {ALL_REDUCE_TIMEOUT_S} s", None, hint) from error
    return Check("all-reduce", "ok", str(found[0]))
