"""`bigchem plan --calibrate`: a few real steps on this machine's ranks, predicted against measured."""

import json
import os
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from bigchem.base import environment
from bigchem.base.errors import UserError
from bigchem.base.printable import markup
from bigchem.base.progress import Progress, amount, tables
from bigchem.launch.cluster.local import on_ranks
from bigchem.plan.from_config import Planned

TIMEOUT_MIN = 60


def show(planned: Planned, sizes: Sequence[int], ranks: int, *, as_json: bool) -> None:
    """Measures every DeepSpeed configuration of the plan with every size, and prints the table.

    UserError for more ranks than this machine has GPUs, or cores if it has no GPU.
    """
    _refuse_more_than_available(ranks)
    progress, rows = Progress(), []
    for ds_config in planned.tables:
        progress.say(f"{ds_config}: {', '.join(f'{size:,}' for size in sizes)} tokens on {ranks} ranks")
        rows += calibrate(planned, ds_config, sizes, ranks)
    if as_json:
        print(json.dumps({"ranks": ranks, "rows": rows}, indent=1))
    else:
        tables().print(table(rows))


def calibrate(planned: Planned, ds_config: str, sizes: Sequence[int], ranks: int) -> list[dict[str, Any]]:
    """Predictions and measurements for one DeepSpeed configuration, on this machine's GPUs if it has any; see
    train/calibrate.py. UserError for a configuration that the run cannot use."""

    if ds_config not in planned.tables:
        raise UserError(planned.left_out.get(ds_config, f"{ds_config} is not planned for"), "ds_config")
    found = on_ranks(measured, ranks, TIMEOUT_MIN, planned, ds_config, list(sizes), gpus=environment.visible_gpus() > 0)
    name = planned.config.model.init_from or planned.config.model.preset
    return [{"model": name, **row} for row in found[0]]


def _refuse_more_than_available(ranks: int) -> None:
    on_gpus = environment.visible_gpus()
    available = on_gpus or len(os.sched_getaffinity(0))
    if ranks > available:
        what = f"cannot measure {ranks} ranks: this machine has {available} {'GPUs' if on_gpus else 'cores'}"
        raise UserError(
            what, "--gpus", f"--calibrate --gpus {available}; without --calibrate you can plan for any number"
        )


def measured(device: Any, planned: Planned, ds_config: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """What each rank runs, in a started process group."""
    import torch.distributed as dist

    from bigchem.ds_config import ds_config_for, offloads
    from bigchem.launch.rendezvous.extensions import load_cpu_adam
    from bigchem.train import calibrate

    rows, world_size = [], dist.get_world_size()
    for size in sizes:
        config = planned.config
        train = config.train.model_copy(update={"ds_config": ds_config})
        # One micro-batch per step on every rank: that is what is timed.
        data = config.data.model_copy(update={"micro_tokens": size, "global_tokens": size * world_size})
        config = config.model_copy(update={"train": train, "data": data})
        if offloads(ds_config_for(config, world_size)):
            load_cpu_adam()
        rows += calibrate.measure(calibrate.Case(config, planned.work.shape, planned.work.longest), device)
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """For a terminal."""
    names = ("model", "ds_config", "micro_tokens", "checkpointing", "item", "predicted", "measured", "difference")
    made = Table(*names, box=None)
    for column in (2, 5, 6, 7):
        made.columns[column].justify = "right"
    for row in rows:
        predicted, measured = row["predicted"], row["measured"]
        in_bytes = predicted is not None
        if not predicted and not measured:
            continue
        change = "0" if predicted == measured else f"{100 * (measured / predicted - 1):+.1f} %" if predicted else ""
        made.add_row(
            markup(row["model"]),
            markup(row["ds_config"]),
            f"{row['micro_tokens']:,}",
            "yes" if row["checkpoint_activations"] else "no",
            row["item"],
            amount(predicted) if in_bytes else "",
            amount(measured) if in_bytes else f"{measured:,.0f}",
            change,
        )
    return made
