"""`bigchem plan`: what fits on which GPUs, why not, and how fast."""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from bigchem.cli import program
from bigchem.cli.options import values

OPTION_NAMES = {
    "gpu_memory": "gpu-memory",
    "nodes": "nodes",
    "between": "interconnect",
    "gpu": "gpu",
    "host_memory": "host-memory",
    "mfu": "mfu",
    "steps": "steps",
    "tokens": "tokens",
    "write": "write",
    "tune": "tune",
}
"""Options that --calibrate excludes, by parameter."""


def plan(
    context: typer.Context,
    config: Annotated[
        str,
        values.config(values.RUNS, "A preset, a Hugging Face folder, a hub model, or a run configuration"),
    ],
    gpus: Annotated[int, typer.Option(min=1, help="GPUs per node, as in a cluster profile.")] = 8,
    gpu_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory of a GPU: 80GB, 79.1GiB; default: --gpu's.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes; the total is --gpus x --nodes GPUs.")] = 1,
    between: Annotated[
        str | None,
        typer.Option(
            "--interconnect",
            metavar="NETWORK",
            help="Network between nodes: ib-hdr, ib-hdr-x8, ib-ndr, ib-ndr-x8, ethernet-10, ethernet-25, ethernet-100, "
            "nvlink, or GB/s per node.",
        ),
    ] = None,
    gpu: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="GPU: v100-16, v100-32, a100-40, a100-80, a10, a6000, l40s, h100, h100-pcie, h200, b200, mi300x, "
            "rtx4090, or a TOML file that describes another.",
        ),
    ] = "h100",
    host_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Host memory of a node, for offload; default: unlimited.")
    ] = None,
    micro_tokens: Annotated[
        list[int] | None, typer.Option(min=1, help="Micro-batch size (repeatable); default: 0.5 to 4 times the run's.")
    ] = None,
    mfu: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Fraction of peak FLOP/s, if you have measured it.")
    ] = 0.35,
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the run; default: train.steps.")] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Length of the run in real tokens, instead of --steps.")
    ] = None,
    write: Annotated[Path | None, typer.Option(help="File for the recommended DeepSpeed configuration.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Run a few steps here on --gpus ranks; compare predicted and measured.")
    ] = False,
    tune: Annotated[
        str | None,
        typer.Option(metavar="CLUSTER", help="Time the best rows in short runs on this cluster, and pick the fastest."),
    ] = None,
    as_json: program.Json = False,
    overrides: program.Set = None,
) -> None:
    """Estimate a run's memory and speed for each ZeRO stage, micro-batch, offload and activation checkpointing.

    GPU memory includes an assumed context and fragmentation. Speeds are estimated from stated assumptions.

    Example: bigchem plan base --gpus 8 --gpu-memory 80GB

    Example: bigchem plan t5-3b --gpus 8 --nodes 2 --interconnect ib-ndr-x8 --write plan.json

    Example: bigchem plan ./flan-t5-xl --gpus 4 --gpu my-gpu.toml --tokens 10000000000

    Example: bigchem plan sweep-1m --gpus 2 --calibrate

    Example: bigchem plan run.toml --tune a100 --gpu a100-80 --write plan.json
    """
    from dataclasses import replace

    from bigchem.launch.cluster.profile import load_profile
    from bigchem.plan import from_config
    from bigchem.plan import report as plan_report
    from bigchem.plan.choices import Room
    from bigchem.plan.speed.hardware import read_bytes
    from bigchem.plan.speed.step_time import Assumptions

    profile = None
    if tune is not None:
        _refuse(context, "--tune", "takes them from the cluster profile", ("gpus", "nodes", "calibrate"))
        profile = load_profile(tune)
        gpus, nodes = profile.tasks_per_node, profile.nodes
    planned = from_config.planned(config, overrides or (), gpus * nodes)
    sizes = planned.micro_tokens(micro_tokens or (), gpus * nodes)
    if calibrate:
        _refuse(context, "--calibrate", "measures this machine only", OPTION_NAMES)
        from bigchem.launch.workloads import calibrate as calibration

        calibration.show(planned, sizes, gpus, as_json=as_json)
        return
    cluster = from_config.cluster(gpu, gpus, nodes, between)
    of_profile = None if profile is None or profile.gpu_memory_gb is None else 1e9 * profile.gpu_memory_gb
    room = Room(
        of_profile or cluster.gpu.memory if gpu_memory is None else read_bytes(gpu_memory, "--gpu-memory"),
        None if host_memory is None else read_bytes(host_memory, "--host-memory"),
    )
    length = plan_report.steps_of(planned, steps, tokens)
    report = plan_report.report(planned, sizes, cluster, room, replace(Assumptions(), mfu=mfu), length, gpu)
    if profile is not None:
        from bigchem.launch.workloads import tune as tuning

        tuning.show(planned, report.found, profile, write, as_json=as_json)
    else:
        report.show(as_json=as_json)
        if write is not None:
            print(report.write(write), file=sys.stderr if as_json else sys.stdout)


def _refuse(context: typer.Context, option: str, why: str, names: Collection[str]) -> None:
    """UserError if options are given that make no sense with `option`."""
    from bigchem.base.errors import UserError

    sources = {name: context.get_parameter_source(name) for name in names}
    if given := [name for name, source in sources.items() if source is not None and source.name != "DEFAULT"]:
        named = ", ".join("--" + OPTION_NAMES.get(name, name) for name in given)
        raise UserError(f"{option} {why}", named, "give one or the other")
