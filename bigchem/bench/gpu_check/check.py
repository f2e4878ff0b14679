"""The check: its stages one after the other, each in a process of its own; a JSON file that is whole at any moment."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

import bigchem
from bigchem.base import atomic
from bigchem.base.errors import UserError, unknown
from bigchem.bench.gpu_check import render as rendering
from bigchem.bench.gpu_check.runner import run
from bigchem.bench.gpu_check.schedule import MINUTES, PARTS, Stage, limits

ROOT = Path(bigchem.__file__).parents[1]
"""Where the stages' processes find this package, installed or not."""
CHILD = "bigchem.bench.gpu_check.stage"
SPARE_S = 3.0
"""How long before its limit a stage stops by itself."""


def main(
    part: Annotated[int, typer.Option(min=1, max=2, help="1: without DeepSpeed; 2: with it.")] = 1,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Length of the part; default: 8 for part 1, 4.5 for part 2.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write; default: gpu-check-PART.json in this folder.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Run only this stage (repeatable).")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="On the CPU, with tiny sizes: shows that it runs, measures nothing.")
    ] = False,
    render: Annotated[
        list[Path] | None, typer.Option(help="Run nothing: print the page's section from this JSON file (repeatable).")
    ] = None,
    into: Annotated[Path | None, typer.Option(help="With --render: replace the section in this page.")] = None,
) -> None:
    """Answer in minutes what only a GPU can: errors, speed, memory, against other implementations.

    Each stage has a time limit, and writes what it finds as it comes: a stage that crashes, hangs or runs out of time
    ends alone, and a killed check loses only the stage in progress.

    Example: bigchem bench gpu-check --out part1.json

    Example: bigchem bench gpu-check --render part1.json --render part2.json --into docs/benchmarks.md
    """
    if render:
        section = rendering.section([_load(path) for path in render])
        if into is None:
            print(section)
        else:
            rendering.replace(into, section)
        return
    names = [stage.name for stage in PARTS[part]]
    for name in only or []:
        if name not in names:
            unknown("stage", name, names, "--only")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    stages = tuple(stage for stage in PARTS[part] if not only or stage.name in only)
    found = check(part, stages, minutes or MINUTES[part], out or Path(f"gpu-check-{part}.json"), dry_run=dry_run)
    wrong = [f"{stage['name']} {stage['status']}" for stage in found["stages"] if stage["status"] != "done"]
    if wrong:
        print(f"not complete: {', '.join(wrong)}")
        raise typer.Exit(1)


def check(part: int, stages: tuple[Stage, ...], minutes: float, out: Path, *, dry_run: bool) -> dict[str, Any]:
    """Runs stages; `out` is rewritten before and after each. Returns what it holds in the end."""
    begun = time.monotonic()
    made: dict[str, Any] = {"part": part, "minutes": minutes, "dry_run": dry_run, "date": time.strftime("%Y-%m-%d")}
    made["stages"] = []
    for number, stage in enumerate(stages):
        partial = out.with_name(f".{out.name}.{stage.name}")
        partial.unlink(missing_ok=True)
        limit = limits(stages, minutes / MINUTES[part], time.monotonic() - begun, number)
        record: dict[str, Any] = {"name": stage.name, "what": stage.what, "limit_s": limit, "status": "running"}
        made["stages"].append(record)

        def show(line: str, name: str = stage.name) -> None:
            print(f"{time.monotonic() - begun:6.1f} s  {name}: {line}", flush=True)

        command = [sys.executable, "-m", CHILD, stage.name, str(partial), str(max(0.5, limit - SPARE_S))]
        command += [str(os.getpid()), *(["--dry-run"] if dry_run else [])]
        variables = {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
        variables |= {"TRITON_INTERPRET": "1"} if dry_run and stage.interpreted else {}
        try:
            _write(out, made)
            show(f"{stage.what}, at most {limit:.0f} s")
            outcome = run(command, limit, show, variables)
            record |= {"status": outcome.status, "seconds": outcome.seconds, "reason": outcome.reason}
            record["tail"] = list(outcome.tail)
            show(f"{outcome.status}, {outcome.seconds:.1f} s {outcome.reason}")
        except BaseException:
            record |= {"status": "killed", "reason": "the check was stopped"}
            raise
        finally:
            record["report"] = json.loads(partial.read_text()) if partial.exists() else None
            _write(out, made)
            partial.unlink(missing_ok=True)
    return made


def _write(path: Path, made: dict[str, Any]) -> None:
    atomic.write_atomically(path, json.dumps(made, indent=1) + "\n")


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not isinstance(found.get("stages"), list):
            raise ValueError("it has no stages")  # noqa: TRY004
    except ValueError as error:
        raise UserError(f"not a file of this check: {error}", str(path)) from None
    return found
