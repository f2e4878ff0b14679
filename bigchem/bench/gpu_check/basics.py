"""Versions and the machine's speed; the kernels' errors; compute-sanitizer."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

import numpy as np
import torch

from bigchem.bench.common import Figure, peak_flops
from bigchem.bench.gpu_check.work import Work, end_workers, pool
from bigchem.bench.model import pieces
from bigchem.bench.model.attention import checks, error, milliseconds
from bigchem.bench.model.peers import Case
from bigchem.model.attention import BACKENDS, KINDS

SANITIZER = ("compute-sanitizer", "/usr/local/cuda/bin/compute-sanitizer")


def versions(work: Work) -> None:
    """Packages, the device, a large product and a copy."""
    found = {**work.report.machine, "CUDA": str(torch.version.cuda)}
    if work.device.type == "cuda":
        card = torch.cuda.get_device_properties(work.device)
        found |= {
            "capability": f"{card.major}.{card.minor}",
            "multiprocessors": str(card.multi_processor_count),
            "memory": f"{card.total_memory / 2**30:.0f} GiB",
            "cuDNN": str(torch.backends.cudnn.version()),
        }
    work.report.rows += [{"what": name, "version": value} for name, value in found.items()]
    work.save()
    product = peak_flops(work.device, work.dtype, 256 if work.dry_run else None)
    work.report.figures.append(Figure(f"a large matrix product in {work.dtype}", product / 1e12, "TFLOP/s"))
    source = torch.randn((1 << 16) if work.dry_run else (1 << 30), device=work.device)
    target = torch.empty_like(source)
    times = [milliseconds(lambda: target.copy_(source), work.device) for _ in range(5)]
    moved = 2 * source.numel() * source.element_size()
    work.report.figures.append(Figure("a copy on the device, read and written", moved / min(times) / 1e9, "TB/s"))


def cases(work: Work, kind: str, backend: str, dtype: torch.dtype) -> Iterator[Case]:
    """Ragged sequences: those of `bigchem bench attention`, or a few tokens."""
    if not work.dry_run:
        yield from checks(kind, backend, work.device, dtype, (64,))
        return
    for dropout in (0.0, 0.1) if backend == "triton" else (0.0,):
        yield Case(np.array([[5, 5], [1, 1], [9, 9]]), kind, 1, 16, dropout, work.device, dtype)


FEW, MANY = pieces.Sizes(9, 24, 40, 50), pieces.Sizes(1000, 768, 2048, 32128)


def kernels(work: Work) -> None:
    """Errors against float64: our kernels in bf16, other backends, our kernels in fp32. compute-sanitizer runs beside
    them: nothing here is timed."""
    sanitized = sanitizers(work)
    others = tuple(name for name in BACKENDS if name not in ("triton", "eager"))
    rounds = [(("triton",), work.dtype), (others, work.dtype), (("triton",), torch.float32)]
    for backends, dtype in rounds[:2] if work.dtype == torch.float32 else rounds:
        _errors(work, backends, dtype)
    for dtype in {work.dtype, torch.float32}:
        try:
            work.report.figures += pieces.errors(FEW if work.dry_run else MANY, work.device, dtype)
        except Exception as failed:
            work.skip(f"the fused kernels, {dtype}", failed)
        work.save()
    for tool, future in sanitized.items():
        try:
            work.report.figures.append(future.result(work.deadline.left))
        except Exception as failed:
            work.skip(f"compute-sanitizer, {tool}", failed)


def _errors(work: Work, backends: tuple[str, ...], dtype: torch.dtype) -> None:
    """Adds backends' errors as they come. Processes compile and compute side by side."""
    workers = pool(work)
    running: dict[Future[Figure], str] = {}
    for backend in backends:
        for kind in KINDS:
            for case in cases(work, kind, backend, dtype):
                reason = BACKENDS[backend].refusal(kind, case.setting)
                label = f"{backend}, {kind}"
                if reason is None:
                    running[workers.submit(error, case, backend)] = f"{label}, dropout {case.dropout:g}"
                else:
                    work.skip(label, reason)
    try:
        for done in as_completed(running, timeout=work.deadline.left):
            failed = done.exception()
            if failed is None:
                work.report.figures.append(done.result())
            else:
                work.skip(running[done], failed)
            work.save()
    except TimeoutError:
        for future, label in running.items():
            if not future.done():
                work.skip(label, "no time left")
    workers.shutdown(wait=False, cancel_futures=True)
    end_workers()


def smallest(work: Work) -> None:
    """One small case a kind, with dropout: for compute-sanitizer, which slows kernels many times."""
    for kind in KINDS:
        case = Case(np.array([[13, 13], [1, 1], [66, 66]]), kind, 1, 64, 0.1, work.device, work.dtype)
        work.report.figures.append(error(case, "triton"))
        work.save()


def sanitizers(work: Work) -> dict[str, Future[Figure]]:
    """Starts compute-sanitizer's search for bad memory accesses and for races in the smallest cases."""
    program = next((path for path in map(shutil.which, SANITIZER) if path), None)
    if program is None or work.device.type != "cuda":
        work.skip("compute-sanitizer", "no GPU here" if work.device.type != "cuda" else "it is not installed")
        return {}
    threads = ThreadPoolExecutor(2)
    return {tool: threads.submit(_sanitized, work, [program, "--tool", tool]) for tool in ("memcheck", "racecheck")}


def _sanitized(work: Work, sanitizer: list[str]) -> Figure:
    """What it finds, as a figure whose target is zero."""
    out = work.out.with_name(f"{work.out.name}.{sanitizer[-1]}")
    limit = work.deadline.left
    child = [sys.executable, "-m", "bigchem.bench.gpu_check.stage", "smallest", str(out), f"{limit:.0f}", "0"]
    try:
        done = subprocess.run([*sanitizer, *child], capture_output=True, text=True, timeout=limit, check=False)
    finally:
        out.unlink(missing_ok=True)
    return Figure(f"compute-sanitizer, {sanitizer[-1]}", float(findings(done.stdout)), "errors", 0)


def findings(output: str) -> int:
    """Number of errors or hazards that compute-sanitizer reports; ValueError without its summary."""
    summary = re.search(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (\d+)", output)
    if summary is None:
        raise ValueError(f"no summary: {output.strip()[-200:] or 'no output'}")
    return int(summary[1])
