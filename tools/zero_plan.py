"""What fits on which GPUs, why not, and how fast: a thin program over bigchem/plan/ and bigchem/launch/planning.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from bigchem import program

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


NOT_MEASURED = {
    "gpu_memory": "gpu-memory",
    "nodes": "nodes",
    "between": "interconnect",
    "gpu": "gpu",
    "host_memory": "host-memory",
    "mfu": "mfu",
    "write": "write",
}
"""Options that --calibrate has no use for, by parameter."""


@app.command()
def main(
    context: typer.Context,
    config: Annotated[str, typer.Argument(help="A run configuration (TOML), a shipped one, or a model's preset.")],
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of a node, as gpus_per_node of a cluster profile.")] = 8,
    gpu_memory: Annotated[str | None, typer.Option(help="Of one GPU: 80GB, 79.1GiB. Default: what --gpu has.")] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes; all GPUs: --gpus x --nodes.")] = 1,
    between: Annotated[
        str | None,
        typer.Option("--interconnect", help="Between nodes: ib-hdr, ib-ndr-x8, ethernet-100, ..., or GB/s of a node."),
    ] = None,
    gpu: Annotated[
        str, typer.Option(help="Whose speed: a100-40|a100-80|a10|l40s|h100|h100-pcie|h200|b200|rtx4090.")
    ] = "h100",
    host_memory: Annotated[str | None, typer.Option(help="Of a node, for offload; default: not judged.")] = None,
    micro_tokens: Annotated[
        list[int] | None, typer.Option(min=1, help="Repeatable; default: half to four times the run's own.")
    ] = None,
    mfu: Annotated[float, typer.Option(min=0.01, max=1.0, help="Share of the peak, if you have measured it.")] = 0.35,
    write: Annotated[Path | None, typer.Option(help="Write the recommended DeepSpeed configuration here.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Run a few steps here on --gpus ranks: told against seen.")
    ] = False,
    as_json: program.Json = False,
    overrides: program.Set = None,
) -> None:
    """Plan a run's memory and speed on GPUs by arithmetic: every ZeRO stage, micro-batch, offload, checkpointing.

    GPU memory counts the assumed context and fragmentation. Speeds are estimates from stated assumptions, not measured.

    Example: python tools/zero_plan.py base --gpus 8 --gpu-memory 80GB

    Example: python tools/zero_plan.py t5-3b --gpus 8 --nodes 2 --interconnect ib-ndr-x8 --write plan.json

    Example: python tools/zero_plan.py sweep-1m --gpus 2 --calibrate
    """
    from dataclasses import replace

    from bigchem.errors import UserError
    from bigchem.launch import planning
    from bigchem.plan import choices, hardware, speed, table
    from bigchem.plan.memory import CONTEXT, FRAGMENTATION
    from bigchem.progress import amount, tables

    planned = planning.planned(config, overrides or (), gpus * nodes)
    sizes = planned.micro_tokens(micro_tokens or (), gpus * nodes)
    if calibrate:
        given = [name for name in NOT_MEASURED if _is_given(context, name)]
        if given:
            names = ", ".join("--" + NOT_MEASURED[name] for name in given)
            raise UserError("--calibrate measures this machine, whatever others have", names, "leave one of the two")
        from bigchem.launch import calibration

        calibration.show(planned, sizes, gpus, as_json=as_json)
        return
    if nodes > 1 and between is None:
        raise UserError("how fast are nodes joined?", "--interconnect", f"known: {', '.join(hardware.INTERCONNECTS)}")
    if nodes == 1 and between is not None:
        raise UserError("--interconnect is between nodes, and there is one", "--nodes")
    kind = hardware.gpu(gpu)
    cluster = speed.Cluster(
        kind, gpus, nodes, hardware.interconnect(between, kind, gpus) if between is not None else 0.0
    )
    room = choices.Room(
        kind.memory if gpu_memory is None else hardware.read_bytes(gpu_memory, "--gpu-memory"),
        None if host_memory is None else hardware.read_bytes(host_memory, "--host-memory"),
    )
    assumed = replace(speed.Assumptions(), mfu=mfu)
    if not kind.peak(planned.config.train.precision):
        raise UserError(f"{gpu} has no known peak in {planned.config.train.precision}", "train.precision", "bf16")
    found = choices.choices(planned.work, planned.tables, sizes, cluster, room, assumed)
    best = choices.recommended(found, room)
    why = choices.reason(best, found, room)
    rows = [table.row(choice, recommended=choice is best) for choice in found]
    facts = planning.facts(planned, best or found[0])
    on_top = f"{amount(CONTEXT)} of context and NCCL, {100 * FRAGMENTATION:.0f} % of fragmentation"
    if as_json:
        whole = {**facts, "gpus": gpus, "nodes": nodes, "gpu": kind.device_name, "gpu_bytes": room.gpu}
        assumptions = {"speed": assumed.told(), "memory": on_top}
        print(json.dumps({**whole, "assumptions": assumptions, "rows": rows, "recommended": why}, indent=1))
    else:
        tables().print(table.table(rows))
        for name, reason in facts["left_out"].items():
            print(f"left out: {name}: {reason}")
        for note in facts["notes"]:
            print(f"{planned.config.train.ds_config}: {note}")
        print(f"{'recommended: ' if best else ''}{why}\n{planning.told(facts)}")
        print(
            f"{gpus} x {kind.device_name} a node, {nodes} node{'s' if nodes > 1 else ''}; GPU: with {on_top} (assumed)"
        )
        print(f"tokens/s: an estimate, not measured: {assumed.told()}")
        if abs(room.gpu - kind.memory) > 0.1 * kind.memory:
            print(f"the speed is that of {gpu}, which has {amount(kind.memory)}: --gpu {' | '.join(hardware.GPUS)}")
    if write is not None:
        if best is None:
            raise UserError(why, "--write", "more GPUs, or a smaller model")
        print(planning.write(best, planned, write), file=sys.stderr if as_json else sys.stdout)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


if __name__ == "__main__":
    program.run(app)
