"""What the run configuration owns of a DeepSpeed configuration: sizes of batches, clipping, precision, optimizer and
schedule. A file may repeat it, or say "auto"; another value is a mistake. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigchem.base.json_config import kind_of, shown
from bigchem.config import RunConfig
from bigchem.data.order.steps import accumulation
from bigchem.ds_config.findings import Findings
from bigchem.ds_config.key import Use
from bigchem.ds_config.keys import FP16, OWNED

Blocks = Mapping[str, tuple[str, Any]]
"""Of a block's parameters that the run configuration has: its field, and the value there."""

OPTIMIZERS = {"adam": "adamw", "adamw": "adamw", "fusedadam": "adamw", "adafactor": "adafactor"}
SCHEDULERS = {"warmuplr": "constant", "warmupdecaylr": "linear", "warmupcosinelr": "cosine"}
"""DeepSpeed's types, and what they are called in the run configuration."""
INERT: Mapping[str, Any] = {
    "torch_adam": "any",
    "last_batch_iteration": "any",
    "warmup_min_lr": 0,
    **dict.fromkeys(("adam_w_mode", "bias_correction"), True),
    **dict.fromkeys(("amsgrad", "max_grad_norm"), False),
}
"""Their parameters that change nothing, at these values."""


def blocks(table: dict[str, Any], config: RunConfig, found: Findings) -> None:
    """Takes `optimizer` and `scheduler` out of the table; a mistake for one that is not the run's."""
    optimizer, schedule = config.optimizer, config.schedule
    _block(
        "optimizer",
        table.pop("optimizer", None),
        OPTIMIZERS,
        ("optimizer.kind", optimizer.kind),
        {
            "lr": ("optimizer.lr", optimizer.lr),
            "betas": ("optimizer.betas", list(optimizer.betas)),
            "eps": ("optimizer.eps", optimizer.eps),
            "weight_decay": ("optimizer.weight_decay", optimizer.weight_decay),
        },
        found,
    )
    _block(
        "scheduler",
        table.pop("scheduler", None),
        SCHEDULERS,
        ("schedule.kind", schedule.kind),
        {
            "warmup_num_steps": ("schedule.warmup_steps", schedule.warmup_steps),
            "warmup_max_lr": ("optimizer.lr", optimizer.lr),
            "total_num_steps": ("train.steps", config.train.steps),
        },
        found,
    )


def _block(
    name: str, block: Any, types: Mapping[str, str], kind: tuple[str, str], fields: Blocks, found: Findings
) -> None:
    if block is None or block == "auto":
        return
    if not isinstance(block, dict) or not isinstance(block.get("params", {}), dict):
        found.mistake(name, f"should be an object with a type and params, not {kind_of(block)}; it {OWNED}: remove it")
        return
    stated = {key: value for key, value in block.get("params", {}).items() if key in fields and value != "auto"}
    differing = [f"{fields[key][0]} = {shown(value)}" for key, value in stated.items() if value != fields[key][1]]
    others = [key for key, value in block.get("params", {}).items() if key not in fields and not _inert(key, value)]
    differing += [f"nothing like {key}" for key in others]
    written = block.get("type", "auto")
    meant = types.get(str(written).lower())
    if written != "auto" and meant != kind[1]:
        differing.insert(0, f"{kind[0]} = '{meant}'" if meant else f"no {kind[0]} is {shown(written)}")
    if not differing:
        found.autos.append((name, f"the run configuration's [{kind[0].split('.')[0]}], which is the same"))
        return
    found.mistake(name, f"{OWNED}: remove it here; what it says would be, there: {', '.join(differing)}")


def _inert(key: str, value: Any) -> bool:
    """Whether a parameter without a field of ours changes nothing."""
    return value in ("auto", None) or INERT.get(key, "") in ("any", value)


def complete(table: dict[str, Any], config: RunConfig, world_size: int, found: Findings) -> None:
    """Adds what the run configuration owns; a mistake for each value that contradicts it."""
    precision = config.train.precision
    steps = accumulation(world_size, config.data.micro_tokens, config.data.global_tokens)
    _own(table, "train_micro_batch_size_per_gpu", 1, "one packed micro-batch: data.micro_tokens", found)
    size = "data.global_tokens / (world_size * data.micro_tokens)"
    _own(table, "gradient_accumulation_steps", steps, size, found)
    _own(table, "gradient_clipping", config.optimizer.grad_clip, "optimizer.grad_clip", found)
    for name in ("bf16", "fp16"):
        block = table.setdefault(name, {})
        _own(block, "enabled", precision == name, "train.precision", found, f"{name}.")
    _fp16(table, precision, found)
    _accumulated_in(table, precision, found)


def _own(table: dict[str, Any], key: str, value: Any, field: str, found: Findings, prefix: str = "") -> None:
    full = prefix + key
    if key in table and table[key] != value:
        found.mistake(full, f"{full} = {shown(table[key])}, but {field} gives {shown(value)}: remove it here")
    found.autos[:] = [(k, f"{shown(value)} ({field})" if k == full else told) for k, told in found.autos]
    table[key] = value


def _fp16(table: dict[str, Any], precision: str, found: Findings) -> None:
    """Without fp16 its loss scaling does nothing."""
    if precision == "fp16":
        return
    useless = [key for key in table["fp16"] if key != "enabled" and FP16[key].use is Use.USED]
    if useless:
        found.ignored.append((f"fp16 ({', '.join(useless)})", f"train.precision = '{precision}'"))
    table["fp16"] = {"enabled": False}


def _accumulated_in(table: dict[str, Any], precision: str, found: Findings) -> None:
    """bf16 gradients are added up in fp32, where DeepSpeed can: stage 0 refuses another type than the weights'."""
    if precision == "bf16" and found.stage:
        table["data_types"] = {"grad_accum_dtype": "fp32", **table.get("data_types", {})}
