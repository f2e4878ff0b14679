"""From a run's DeepSpeed file to the table that DeepSpeed gets. Pure."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem.base import json_file
from bigchem.base.errors import UserError
from bigchem.base.installed import resources
from bigchem.base.toml import quoted
from bigchem.config import RunConfig
from bigchem.ds_config import buckets, checking, owned
from bigchem.ds_config.findings import Findings
from bigchem.ds_config.keys import NEEDS_CUDA
from bigchem.model import presets
from bigchem.model.presets import Shape, num_parameters
from bigchem.model.weights import hf_config, hub

ZERO = "zero_optimization"
QUIET = {"throughput": {"enabled": False}}
"""Timers: DeepSpeed's measures its own speed, and waits for the device three times a step."""


@dataclass(frozen=True)
class Completed:
    """table: for DeepSpeed. notes: lines on "auto" and ignored values. path: of the file."""

    table: dict[str, Any]
    notes: tuple[str, ...]
    path: Path

    @property
    def is_shipped(self) -> bool:
        """Whether the file is shipped, and so checked by the tests."""
        return self.path.parent == resources.folder("ds_configs")


def completed(config: RunConfig, world_size: int) -> Completed:
    """The run's DeepSpeed file, checked and completed from the run configuration.

    UserError that lists every mistake: unknown keys, wrong values, keys that DeepSpeed has removed, settings that
    bigchem cannot run or read back, and contradictions of the run configuration.
    """
    path = resources.find("ds_configs", config.train.ds_config, ".json")
    written, findings = json_file.load_config(path, '{"zero_optimization": {"stage": 2}}'), Findings()
    _refuse_accelerate(written, path)
    owned.blocks(written, config, findings)
    table = checking.checked(written, findings)
    owned.complete(table, config, world_size, findings)
    derived = _derive(table, config, findings)
    check_combinations(table, config, world_size, findings)
    findings.refuse(str(path))
    table |= {"zero_allow_untested_optimizer": True, "steps_per_print": 10**9, "wall_clock_breakdown": False}
    table["timers"] = {**QUIET, **table.get("timers", {})}
    unsharded = () if "stage" in table.get("zero_optimization", {}) else ("no zero_optimization.stage: ZeRO-0",)
    return Completed(table, (*unsharded, *derived, *_quantized(table), *findings.notes()), path)


def _quantized(table: Mapping[str, Any]) -> tuple[str, ...]:
    found = {key: what for key, what in NEEDS_CUDA.items() if table.get(ZERO, {}).get(key)}
    return tuple(f"never tried: {key}: {what}; its kernels need CUDA" for key, what in found.items())


def refuse_on_cpu(completed: Completed) -> None:
    """UserError for a table that only a GPU can run."""
    if keys := [key for key in NEEDS_CUDA if completed.table.get(ZERO, {}).get(key)]:
        what = f"{' and '.join(keys)}: DeepSpeed's kernels for it need CUDA, and this run is on the CPU"
        raise UserError(
            what, str(completed.path), "train.ds_config = 'zero3_hpz', which sends exact numbers, or 'zero3'"
        )


def _derive(table: dict[str, Any], config: RunConfig, findings: Findings) -> tuple[str, ...]:
    """Adds the sizes of communication buckets that the file leaves out; a line that lists them."""
    zero, shape = table.get(ZERO, {}), _shape(config)
    if shape is None or findings.stage is None:
        return ()
    sizes = {key: size for key, size in buckets.derived(shape, findings.stage).items() if key not in zero}
    if not sizes:
        return ()
    zero.update(sizes)
    findings.autos[:] = [(key, what) for key, what in findings.autos if key.removeprefix(f"{ZERO}.") not in sizes]
    listed = ", ".join(f"{key} = {size:,}" for key, size in sizes.items())
    return (f"derived from the model's {num_parameters(shape) / 1e6:,.0f} M parameters: {listed}",)


def _shape(config: RunConfig) -> Shape | None:
    """The model's shape; None if it is on the hub and not on this machine, or its folder is not usable."""
    name = config.model.init_from
    if name is None:
        return presets.shape(config.model.preset)
    with suppress(UserError):
        folder = hub.cached(name)
        return None if folder is None else hf_config.read_shape(folder)
    return None


def _refuse_accelerate(written: dict[str, Any], path: Path) -> None:
    """UserError for a configuration of `accelerate launch`, which names or describes a DeepSpeed file."""
    if not {"compute_environment", "distributed_type", "deepspeed_config"} & written.keys():
        return
    inside = written.get("deepspeed_config")
    inside = inside if isinstance(inside, dict) else {}
    file, stage = inside.get("deepspeed_config_file"), inside.get("zero_stage")
    hint = "give a DeepSpeed file, or a shipped one: train.ds_config = 'zero2'"
    if isinstance(file, str):
        hint = f"give its deepspeed_config_file: train.ds_config = {quoted(file)}"
    elif stage in (0, 1, 2, 3):
        hint = f"its deepspeed_config has zero_stage {stage:g}: train.ds_config = 'zero{stage:g}'"
    raise UserError("an Accelerate configuration, not DeepSpeed's", str(path), hint)


def ds_config_for(config: RunConfig, world_size: int) -> dict[str, Any]:
    """The table of `completed`."""
    return completed(config, world_size).table


def zero_stage(ds_config: dict[str, Any]) -> int:
    """The ZeRO stage of a DeepSpeed configuration; default: 0."""
    return int(ds_config.get("zero_optimization", {}).get("stage", 0))


def offloads(ds_config: dict[str, Any]) -> bool:
    """Whether a DeepSpeed configuration offloads the optimizer's states."""
    device = ds_config.get("zero_optimization", {}).get("offload_optimizer", {}).get("device", "none")
    return bool(device != "none")


def check_combinations(table: Mapping[str, Any], config: RunConfig, world_size: int, findings: Findings) -> None:
    """Adds a mistake for each invalid combination. table: from `checked`."""
    if findings.stage is None:
        return
    zero = table.get(ZERO, {})
    _offload(zero, findings.stage, findings)
    hpz = zero.get("zero_hpz_partition_size", 1)
    if world_size % hpz:
        findings.mistake(f"{ZERO}.zero_hpz_partition_size", f"{hpz} does not divide the run's {world_size} processes")
    _types(table, config.train.precision, findings)
    _optimizer(zero, config, findings.stage, findings)


def _types(table: Mapping[str, Any], precision: str, findings: Findings) -> None:
    """Stage 3 hangs if fp32 gradients are accumulated in fp16, in which T5's gradients overflow anyway."""
    named = {
        "data_types.grad_accum_dtype": table.get("data_types", {}).get("grad_accum_dtype"),
        "communication_data_type": table.get("communication_data_type"),
    }
    for key, value in named.items():
        if value == "fp16" and precision != "fp16":
            findings.mistake(key, f"\"fp16\", but train.precision = '{precision}': T5 overflows in fp16")


def _offload(zero: Mapping[str, Any], stage: int, findings: Findings) -> None:
    for name, stages in (("offload_optimizer", (1, 2, 3)), ("offload_param", (3,))):
        table = zero.get(name, {})
        device = table.get("device", "none")
        if device == "none":
            continue
        key, known = f"{ZERO}.{name}", " to ".join(str(s) for s in (stages[0], stages[-1]))
        if stage not in stages:
            findings.mistake(key, f"needs stage {known if len(stages) > 1 else stages[0]}, not {stage}")
        elif device == "nvme" and stage != 3:
            findings.mistake(f"{key}.device", f'"nvme" needs stage 3, not {stage}')
        if device == "nvme" and "nvme_path" not in table:
            findings.mistake(f"{key}.nvme_path", "is missing: a folder on a fast local disk")


def _optimizer(zero: Mapping[str, Any], config: RunConfig, stage: int, findings: Findings) -> None:
    kind = config.optimizer.kind
    if kind == "adafactor" and stage > 0:
        findings.mistake(
            f"{ZERO}.stage",
            f"optimizer.kind = 'adafactor' needs whole matrices, but ZeRO-{stage} has flat pieces of them: "
            "train.ds_config = 'zero0', or optimizer.kind = 'adamw_rms', which scales its rates in the same way",
        )
    if kind == "adamw_rms" and zero.get("offload_param", {}).get("device") == "nvme":
        findings.mistake(
            f"{ZERO}.offload_param",
            "optimizer.kind = 'adamw_rms' reads every weight before a step, but these are on NVMe: "
            "optimizer.kind = 'adamw', or offload_param to the CPU",
        )
