"""Finds the fastest tile sizes on this GPU, for bigchem/model/kernels/tiles.py."""

from collections.abc import Iterator
from concurrent.futures import Executor, wait
from typing import Annotated

import numpy as np
import torch
import typer

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.bench.common import Deadline, Report, at_most, machine, pick_device, release
from bigchem.bench.model.attention import timed
from bigchem.bench.model.peers import Case, ours
from bigchem.cli import program
from bigchem.model.attention import BACKENDS
from bigchem.model.kernels.tiles import KERNELS, Kernel, Tile, Tiles, all_tiles

SIZES = {"forward": ((64, 32), (64, 64), (128, 64), (128, 128)),
         "grad_queries": ((32, 32), (64, 32), (64, 64), (128, 64)),
         "grad_keys": ((32, 32), (32, 64), (64, 64), (32, 128), (64, 128)),
         "grad_bias": ((32, 32), (64, 32), (64, 64)),
         "grad_short": ((32, 32), (64, 64))}  # fmt: skip
"""(block_m, block_n) to try for each kernel."""


def candidates(kernel: Kernel, table: Tiles) -> Iterator[Tiles]:
    """The table with other tiles of a kernel."""
    added_up = kernel in ("grad_bias", "grad_short")
    for block_m, block_n in SIZES[kernel]:
        for num_warps in (4, 8):
            for num_stages in (1,) if added_up else (2, 3):
                for sequences in (1, 2, 4, 8) if added_up else (1,):
                    chosen = table._replace(**{kernel: Tile(block_m, block_n, num_warps, num_stages, sequences)})
                    if fit(chosen):
                        yield chosen


def fit(tiles: Tiles) -> bool:
    """Whether grad_bias and grad_queries divide keys into near and far alike; see `Tile`."""
    near, queries = tiles.grad_bias, tiles.grad_queries
    return near.block_m == queries.block_m and near.block_n % queries.block_n == 0


def milliseconds(case: Case, chosen: Tiles) -> float:
    """Milliseconds of forward and backward with these tiles."""
    from bigchem.model.kernels import launch

    before = launch.tiles_for
    launch.tiles_for = lambda *_: chosen
    try:
        calls = [ours(case, "triton") for _ in range(3)]
        for call in calls:
            call()
        return timed({"": calls}, case.device, 0.1)[""][0]
    finally:
        launch.tiles_for = before


def compiled(case: Case, workers: Executor, limit_s: float) -> None:
    """Has worker processes compile all candidates into Triton's cache, in at most `limit_s` seconds, so that `search`
    has its time for timing. A candidate that fails fails there again."""
    table, running = _table(case), []
    for kernel in KERNELS:
        for tiles in candidates(kernel, table):
            running.append(workers.submit(milliseconds, case, tiles))
    wait(running, timeout=limit_s)
    workers.shutdown(wait=False, cancel_futures=True)


def _table(case: Case) -> Tiles:
    arch = 10 * torch.cuda.get_device_capability()[0] if case.device.type == "cuda" else 90
    return all_tiles(int(case.lengths.max()), case.dim, arch, fp32=case.dtype == torch.float32)


def search(label: str, case: Case, deadline: Deadline, report: Report, progress: Progress) -> None:
    """The five fastest candidates of each kernel, fastest first; the other kernels keep the table's tiles."""
    table = _table(case)
    base = milliseconds(case, table)
    kernels = [kernel for kernel in KERNELS if kernel != "grad_short" or case.lengths.min() <= 64]
    for number, kernel in enumerate(kernels):
        found, end = [], deadline.share(len(kernels) - number)
        for tried, tiles in enumerate(candidates(kernel, table)):
            tile = getattr(tiles, kernel)
            if tried and end.left == 0:
                report.skip(f"{label}, {kernel}", "no time left", progress)
                break
            try:
                with at_most(30):
                    found.append((milliseconds(case, tiles), tile))
            except Exception as failed:  # too much shared memory, say
                report.skip(f"{label}, {kernel}, {tile}", failed, progress)
        for ms, tile in sorted(found, key=lambda pair: pair[0])[:5]:
            now = getattr(table, kernel)
            line: dict[str, object] = {
                "lengths": label,
                "kind": case.kind,
                "kernel": kernel,
                "tile": f"{tile.block_m} x {tile.block_n}",
            }
            line |= {"warps": tile.num_warps, "stages": tile.num_stages, "sequences": tile.sequences}
            report.rows.append({**line, "ms": ms, "over the table's": ms / base, "in the table": tile == now})
        release(case.device)


def main(
    length: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Time sequences of this length (repeatable); default: 64, 512, 2048."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Query tokens per call.")] = 16384,
    heads: Annotated[int, typer.Option(min=1, help="Number of heads.")] = 12,
    head_dim: Annotated[int, typer.Option(min=1, max=128, help="Head dimension.")] = 64,
    dropout: Annotated[float, typer.Option(min=0.0, max=0.9, help="Dropout rate.")] = 0.1,
    minutes: Annotated[float, typer.Option(help="Time limit in minutes.")] = 7.0,
    device: Annotated[
        str | None, typer.Option(help="cuda, or cpu: Triton's interpreter, only to check that it runs.")
    ] = None,
    as_json: program.Json = False,
) -> None:
    """Time each attention kernel with other tile sizes, and print the five fastest.

    Example: bigchem bench tiles --length 512 --head-dim 128
    """
    where, progress, deadline = pick_device(device), Progress(), Deadline(60 * minutes)
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    report = Report({**machine(where), "queries": str(tokens), "heads": f"{heads} x {head_dim}"})
    settings = [(n, kind) for n in length or (64, 512, 2048) for kind in ("encoder_self", "decoder_self")]
    for number, (n, kind) in enumerate(settings):
        case = Case(np.full((max(1, tokens // n), 2), n), kind, heads, head_dim, dropout, where, dtype)
        reason = BACKENDS["triton"].refusal(kind, case.setting)
        if reason is not None:
            hint = "to see that it runs: TRITON_INTERPRET=1, --device cpu, a few tokens"
            raise UserError(f"the kernels cannot run: {reason}", "--device", hint)
        search(f"{n} each", case, deadline.share(len(settings) - number), report, progress)
    report.show(as_json)
