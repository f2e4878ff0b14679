"""The compiler's report on the attention kernels: registers, stack, shared memory. Needs no GPU."""

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bigchem.base.errors import UserError
from bigchem.base.installed.packages import install
from bigchem.base.progress import Progress, tables
from bigchem.cli import program
from bigchem.model.kernels import sass

if TYPE_CHECKING:  # needs Triton
    from bigchem.model.kernels.aot import Case, Report

KINDS = {(False, True): "encoder", (True, True): "decoder", (False, False): "cross"}
"""(causal, has a bias) -> kind of attention."""


def main(
    arch: Annotated[
        list[int] | None,
        typer.Option(help="GPU architecture: such as 80 (A100) or 90 (H100) (repeatable); default: 80 and 90."),
    ] = None,
    head_dim: Annotated[
        list[int] | None, typer.Option(min=1, max=128, help="Head dimension (repeatable); default: 64.")
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="bf16, fp16 or fp32 (repeatable); default: bf16.")] = None,
    fused: Annotated[
        bool, typer.Option("--fused", help="The kernels between matrix products, instead of attention's.")
    ] = False,
    by_kind: Annotated[
        bool,
        typer.Option("--by-kind", help="Also print each loop's instructions by kind: matrix, exp2, shuffle and so on."),
    ] = False,
    as_json: program.Json = False,
) -> None:
    """Compile every kernel with every tile of bigchem/model/kernels/tiles.py and print the compiler's report.

    The column `stack` has the bytes of spilled registers. Exits with 1 if one is not 0. `loops` has the instructions
    that a thread executes per tile: first in the loop over whole tiles, then in those that mask.

    Example: bigchem bench kernels --arch 90 --head-dim 128
    """
    os.environ.pop("TRITON_INTERPRET", None)  # the interpreter cannot compile
    try:
        from bigchem.model.kernels import aot
        from bigchem.model.kernels.fused import aot as fused_aot
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed", hint=install("triton")) from None

    wrong = sorted(set(dtype or []) - {"bf16", "fp16", "fp32"})
    if wrong:
        raise UserError(f"unknown dtype {', '.join(wrong)}", "--dtype", "known: bf16, fp16, fp32")
    if min(arch or [80]) < 80:
        raise UserError(f"the kernels need 80 (A100) or later, got {min(arch or [80])}", "--arch")
    if fused:
        cases = [(a, case) for a in arch or [80, 90] for case in fused_aot.cases(tuple(dtype or ["bf16"]))]
        _report_fused([{"arch": a, **case.named(), **fused_aot.compile_case(case, a)} for a, case in cases], as_json)
        return
    progress, rows = Progress(), []
    for capability in arch or [80, 90]:
        for case in aot.cases(capability, tuple(head_dim or [64]), tuple(dtype or ["bf16"])):
            report = aot.compile_case(case, capability)
            rows.append((capability, case, report))
            progress.say(f"sm_{capability} {case.kernel}: {report.registers} registers, {report.stack} bytes of stack")
    if as_json:
        print(json.dumps([{"arch": a, **asdict(case), **asdict(report)} for a, case, report in rows], indent=1))
    else:
        tables().print(_summary(rows))
        if by_kind:
            tables().print(_by_kind(rows))
    spilled = sum(report.stack > 0 for _, _, report in rows)
    if spilled:
        raise typer.Exit(1)


def _report_fused(rows: list[dict[str, int | str]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*map(str, row.values()))
        tables().print(table)
    if any(row["stack"] for row in rows):
        raise typer.Exit(1)


def _summary(rows: "list[tuple[int, Case, Report]]") -> Table:
    table = Table(
        "kernel", "tile", "warps", "attention", "dropout", "registers", "stack", "shared", "products", "loops"
    )
    for arch, case, report in rows:
        table.add_row(
            *_named(arch, case),
            str(report.registers),
            str(report.stack),
            f"{report.shared:,}",
            f"{report.wgmma} wgmma" if report.wgmma else f"{report.mma} mma",
            ", ".join(str(loop.instructions) for loop in report.loops),
        )
    return table


def _by_kind(rows: "list[tuple[int, Case, Report]]") -> Table:
    kinds = [*sass.KINDS, "other"]
    table = Table("kernel", "tile", "warps", "attention", "dropout", "loop", "all", *kinds)
    for arch, case, report in rows:
        for number, loop in enumerate(report.loops):
            counts = (str(loop.by_kind.get(kind, "")) for kind in kinds)
            table.add_row(*_named(arch, case), str(number), str(loop.instructions), *counts)
    return table


def _named(arch: int, case: "Case") -> tuple[str, ...]:
    return (
        f"sm_{arch} {case.kernel} {case.head_dim} {case.dtype}",
        f"{case.tile.block_m} x {case.tile.block_n}",
        str(case.tile.num_warps),
        KINDS[case.causal, case.reach > 0],
        "yes" if case.dropout else "no",
    )
