"""DeepSpeed keys that the run configuration owns: batch sizes, clipping, precision, optimizer and schedule. A file may
repeat its values or say "auto"; any other value is a mistake. The type of a block whose parameters are all "auto" is
not one, since transformers' example has it. Pure."""

from collections.abc import Mapping
from typing import Any

from bigchem.base.json_file import kind_of, shown
from bigchem.config import RunConfig
from bigchem.data.order.steps import accumulation
from bigchem.ds_config.findings import Findings
from bigchem.ds_config.key import Use
from bigchem.ds_config.keys import FP16, OWNED

Blocks = Mapping[str, tuple[str, Any]]
"""A block's parameters that the run configuration owns: parameter -> (field, value)."""

OPTIMIZERS = {"adam": "adamw", "adamw": "adamw", "fusedadam": "adamw", "adafactor": "adafactor"}
SCHEDULERS = {"warmuplr": "constant", "warmupdecaylr": "linear", "warmupcosinelr": "cosine"}
"""DeepSpeed's types -> their names in the run configuration."""
INERT: Mapping[str, Any] = {
    "torch_adam": "any",
    "last_batch_iteration": "any",
    "warmup_min_lr": 0,
    **dict.fromkeys(("adam_w_mode", "bias_correction"), True),
    **dict.fromkeys(("amsgrad", "max_grad_norm"), False),
}
"""Parameters of these blocks that change nothing at these values."""


def blocks(table: dict[str, Any], config: RunConfig, findings: Findings) -> None:
    """Removes `optimizer` and `scheduler` from the table; a mistake for one that differs from the run's."""
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
        findings,
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
        findings,
    )


def _block(
    name: str, block: Any, types: Mapping[str, str], kind: tuple[str, str], fields: Blocks, findings: Findings
) -> None:
    if block is None or block == "auto":
        return
    if not isinstance(block, dict) or not isinstance(block.get("params", {}), dict):
        what = f"should be an object with a type and params, not {kind_of(block)}; it {OWNED}: remove it"
        findings.mistake(name, what)
        return
    params = block.get("params", {})
    stated = {key: value for key, value in params.items() if key in fields and value != "auto"}
    differing = [f"{fields[key][0]} = {shown(value)}" for key, value in stated.items() if value != fields[key][1]]
    others = [key for key, value in params.items() if key not in fields and not _inert(key, value)]
    differing += [f"no counterpart of {key}" for key in others]
    written = block.get("type", "auto")
    meant = types.get(str(written).lower())
    section = kind[0].split(".")[0]
    if meant not in (None, kind[1]) and params and all(value == "auto" for value in params.values()):
        what = f"the run configuration's [{section}]: {kind[0]} = '{kind[1]}', not {written}'s '{meant}'"
        findings.autos.append((name, what))
        return
    if written != "auto" and meant != kind[1]:
        differing.insert(0, f"{kind[0]} = '{meant}'" if meant else f"no {kind[0]} for {shown(written)}")
    if not differing:
        findings.autos.append((name, f"the run configuration's [{section}], which is the same"))
        return
    findings.mistake(name, f"{OWNED}: remove it here; there it would be: {', '.join(differing)}")


def _inert(key: str, value: Any) -> bool:
    """Whether a parameter that the run configuration lacks changes nothing."""
    return value in ("auto", None) or INERT.get(key, "") in ("any", value)


def complete(table: dict[str, Any], config: RunConfig, world_size: int, findings: Findings) -> None:
    """Adds what the run configuration owns; a mistake for each value that contradicts it."""
    precision = config.train.precision
    steps = accumulation(world_size, config.data.micro_tokens, config.data.global_tokens)
    _own(table, "train_micro_batch_size_per_gpu", 1, "one packed micro-batch: data.micro_tokens", findings)
    size = "data.global_tokens / (world_size * data.micro_tokens)"
    _own(table, "gradient_accumulation_steps", steps, size, findings)
    _own(table, "gradient_clipping", config.optimizer.grad_clip, "optimizer.grad_clip", findings)
    for name in ("bf16", "fp16"):
        block = table.setdefault(name, {})
        _own(block, "enabled", precision == name, "train.precision", findings, f"{name}.")
    _fp16(table, precision, findings)
    # bf16 gradients are accumulated in fp32, except at stage 0, where DeepSpeed requires the weights' type.
    if precision == "bf16" and findings.stage:
        table["data_types"] = {"grad_accum_dtype": "fp32", **table.get("data_types", {})}


def _own(table: dict[str, Any], key: str, value: Any, field: str, findings: Findings, prefix: str = "") -> None:
    full = prefix + key
    if key in table and table[key] != value:
        findings.mistake(full, f"{full} = {shown(table[key])}, but {field} gives {shown(value)}: remove it here")
    findings.autos[:] = [(k, f"{shown(value)} ({field})" if k == full else v) for k, v in findings.autos]
    table[key] = value


def _fp16(table: dict[str, Any], precision: str, findings: Findings) -> None:
    """Loss scaling is ignored without fp16."""
    if precision == "fp16":
        return
    useless = [key for key in table["fp16"] if key != "enabled" and FP16[key].use is Use.USED]
    if useless:
        findings.ignored.append((f"fp16 ({', '.join(useless)})", f"train.precision = '{precision}'"))
    table["fp16"] = {"enabled": False}
