"""A plan's rows as a terminal table and as plain data. Pure."""

from typing import Any

from rich.table import Table

from bigchem.base.printable import markup
from bigchem.base.progress import amount
from bigchem.plan.choices import Choice
from bigchem.plan.speed.cost import Cost

COLOURS = {"ok": "green", "tight": "yellow", "no": "red"}


def row(choice: Choice, cost: Cost, *, recommended: bool) -> dict[str, Any]:
    """A row as plain data: bytes, seconds, tokens per second. cost: of the whole run."""
    time = choice.time
    return {
        "recommended": recommended,
        "ds_config": choice.ds_config,
        "stage": choice.setup.stage,
        "offload_optimizer": choice.setup.offload("optimizer"),
        "offload_param": choice.setup.offload("param"),
        "micro_tokens": choice.micro_tokens,
        "checkpoint_activations": choice.setup.checkpoint_activations,
        "verdict": choice.verdict,
        "why": choice.why,
        "gpu_bytes": choice.needed,
        "allocated_bytes": choice.memory.total,
        "moment": choice.memory.moment,
        "items": choice.memory.items,
        "host_bytes_per_node": choice.host,
        "tokens_per_s": time.tokens_per_s,
        "step_s": time.total,
        "compute_s": time.compute,
        "communication_s": time.communication,
        "exposed_s": time.exposed,
        "optimizer_s": time.optimizer,
        "micro_batches": time.micro_batches,
        "sent_bytes_per_gpu": time.traffic.sent,
        "sent_bytes_between_nodes": time.between_nodes,
        "run_hours": cost.hours,
        "run_gpu_hours": cost.gpu_hours,
        "run_kwh_upper_estimate": cost.kwh,
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Rows of `row` as a terminal table."""
    made = Table("", "ds_config", "micro_tokens", "checkpointing", "GPU", "", "tokens/s", "host", "why", box=None)
    for column in (2, 4, 6, 7):
        made.columns[column].justify = "right"
    for one in rows:
        made.add_row(
            ">" if one["recommended"] else "",
            markup(one["ds_config"]),
            f"{one['micro_tokens']:,}",
            "yes" if one["checkpoint_activations"] else "no",
            amount(one["gpu_bytes"]),
            f"[{COLOURS[one['verdict']]}]{one['verdict']}[/]",
            speed(one["tokens_per_s"]),
            amount(one["host_bytes_per_node"]) if one["host_bytes_per_node"] else "",
            markup(one["why"]),
            style="bold" if one["recommended"] else None,
        )
    return made


def speed(tokens_per_s: float) -> str:
    """A speed to two digits, which is all that the estimate supports."""
    return f"{rounded(tokens_per_s):,.0f}"


def rounded(tokens_per_s: float) -> float:
    """A speed rounded to two digits."""
    return float(f"{tokens_per_s:.2g}")
