"""Planned against measured peak memory, for three models at three micro-batch sizes, in one call on one GPU."""

import json
from typing import Annotated

import typer

from bigchem.cli import program

MODELS = ("t5-small", "t5-base", "t5-large")
SIZES = (4096, 8192, 16384)


def main(
    model: Annotated[
        list[str] | None, typer.Option(help="Model preset (repeatable); default: t5-small, t5-base, t5-large.")
    ] = None,
    micro_tokens: Annotated[
        list[int] | None, typer.Option(min=1, help="Micro-batch size (repeatable); default: 4096, 8192, 16384.")
    ] = None,
    ds_config: Annotated[
        list[str] | None, typer.Option(help="Shipped DeepSpeed file (repeatable); default: zero2.")
    ] = None,
    ranks: Annotated[int, typer.Option(min=1, help="Processes on this machine, one per GPU.")] = 1,
    as_json: program.Json = False,
    overrides: program.Set = None,
) -> None:
    """Measure what `bigchem plan` predicts: states by kind, peak memory of a step, tokens per second.

    On a GPU the planned peak should be within 10 % of the measured one. On a CPU the peak is the growth of resident
    memory, which is less precise. Needs no data: examples have the maximum length.

    Example: bigchem bench plan

    Example: bigchem bench plan --model sweep-1m --micro-tokens 2048 --set train.precision=fp32
    """
    from bigchem.base.progress import Progress, tables
    from bigchem.launch.workloads import calibrate
    from bigchem.plan import from_config

    rows, progress = [], Progress()
    for name in model or MODELS:
        planned = from_config.planned(name, overrides or (), ranks)
        sizes = planned.micro_tokens(micro_tokens or SIZES, ranks)
        for config in ds_config or ("zero2",):
            progress.say(f"{name}, {config}: {', '.join(f'{size:,}' for size in sizes)} tokens on {ranks} ranks")
            rows += calibrate.calibrate(planned, config, sizes, ranks)
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        tables().print(calibrate.table(rows))
