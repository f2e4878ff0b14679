"""Proves exported weights: transformers' T5 must give the probe batch the loss that the engine recorded.

The model is transformers' own, created without weights. Each module's are loaded when it runs and dropped after, so the
proof holds one module at a time, where from_pretrained would hold all.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bigchem.base.errors import UserError
from bigchem.export.shards import INDEX, SINGLE
from bigchem.train.checkpoint.probe import agree
from bigchem.train.checkpoint.store import Manifest
from bigchem.train.checkpoint.zero_layout import ZeroFiles

TOKENS = 128
"""Target tokens per forward pass, padding included: 16 MB of logits with T5's vocabulary, twice that with the loss."""

Read = Callable[[str], Tensor]


@dataclass(frozen=True)
class Losses:
    """The probe's loss with the written weights, and with the last checkpoint's. They differ only for a mean."""

    written: float
    checkpoint: float


def import_ahead() -> Future[ModuleType]:
    """Imports transformers in a thread: three seconds, in which reading, hashing and writing hardly need the GIL."""
    pool = ThreadPoolExecutor(1)
    importing = pool.submit(import_module, "transformers.models.t5.modeling_t5")
    pool.shutdown(wait=False)
    return importing


def prove(
    folder: Path,
    checkpoints: Sequence[Path],
    manifests: Sequence[Manifest],
    files: Sequence[ZeroFiles],
    *,
    rounded: bool,
    mean: bool,
) -> Losses:
    """Losses of the weights written to a folder. UserError if they are not what the engine recorded.

    rounded: to bf16. mean: the engine never computed with a mean, so every checkpoint's own weights, read the same way,
    are proven instead.
    """
    written = loss = folder_loss(folder, manifests[-1])
    if not mean:
        check_loss(loss, manifests[-1], checkpoints[-1], rounded=rounded)
        return Losses(written, loss)
    for path, manifest, source in zip(checkpoints, manifests, files, strict=True):
        loss = probe_loss(manifest.model, source.full, source.shapes.keys(), manifest.probe)
        check_loss(loss, manifest, path)
    return Losses(written, loss)


def check_loss(loss: float, manifest: Manifest, where: Path, *, rounded: bool = False) -> None:
    """UserError if this is not the loss that the engine recorded. rounded: whether the weights were rounded to bf16."""
    recorded = manifest.probe["loss"]
    if not agree(loss, recorded, "bf16" if rounded else manifest.precision):
        raise UserError(
            f"these weights give the probe batch a loss of {loss:.6f}, the engine recorded {recorded:.6f}",
            str(where),
            "the checkpoint or this conversion is wrong: nothing was written; report it",
        )


def folder_loss(folder: Path, manifest: Manifest) -> float:
    """The probe's loss with a folder's safetensors and config.json."""
    from safetensors import safe_open

    index = folder / INDEX
    if index.is_file():
        files = {name: folder / file for name, file in json.loads(index.read_text())["weight_map"].items()}
    else:
        with safe_open(folder / SINGLE, framework="pt") as file:
            files = dict.fromkeys(file.keys(), folder / SINGLE)

    def read(name: str) -> Tensor:
        with safe_open(files[name], framework="pt") as file:  # mapped as long as the tensor lives
            tensor: Tensor = file.get_tensor(name)
        return tensor

    return probe_loss(json.loads((folder / "config.json").read_text()), read, files.keys(), manifest.probe)


@torch.no_grad()
def probe_loss(config: Mapping[str, Any], read: Read, names: Collection[str], probe: Mapping[str, Any]) -> float:
    """Mean loss per target token of a probe's examples, by transformers in fp32 on the CPU.

    config: config.json. read: returns a parameter by name. names: all of them; UserError if they are not the model's.
    """
    model = _streamed(config, read, names)
    total, count = 0.0, 0
    for rows in _groups([len(target) for target in probe["targets"]]):
        sources, targets = ([probe[side][row] for row in rows] for side in ("sources", "targets"))
        labels = _padded(targets, -100)
        mask = _padded([[1] * len(source) for source in sources], 0)
        loss = float(model(input_ids=_padded(sources, 0), attention_mask=mask, labels=labels, use_cache=False).loss)
        number = sum(map(len, targets))
        total, count = total + loss * number, count + number
    return total / count


def _groups(lengths: list[int]) -> Iterator[list[int]]:
    """Groups of rows per forward pass: at most TOKENS tokens when padded, or a single row."""
    group: list[int] = []
    for row, length in enumerate(lengths):
        if group and (len(group) + 1) * max(length, *(lengths[i] for i in group)) > TOKENS:
            yield group
            group = []
        group.append(row)
    yield group


def _padded(rows: list[list[int]], value: int) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def _streamed(config: Mapping[str, Any], read: Read, names: Collection[str]) -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    with torch.device("meta"):
        model: nn.Module = T5ForConditionalGeneration(T5Config.from_dict(dict(config))).eval()
    tied: dict[str, str] = model._tied_weights_keys  # type: ignore[assignment]
    sources: dict[nn.Module, dict[str, str]] = {}
    for path, module in model.named_modules():
        own = {key: f"{path}.{key}" for key, _ in module.named_parameters(recurse=False)}
        if own:
            sources[module] = {key: name if name in names else tied.get(name, name) for key, name in own.items()}
    used = {name for table in sources.values() for name in table.values()}
    if used != set(names):
        differing = ", ".join(sorted(used ^ set(names))[:3])
        raise UserError(f"transformers' T5 and the checkpoint do not have the same parameters: {differing}")

    def load(module: nn.Module, args: Any) -> None:
        for key, name in sources[module].items():
            setattr(module, key, nn.Parameter(read(name).float(), requires_grad=False))

    def drop(module: nn.Module, args: Any, output: Any) -> None:
        for key in sources[module]:
            setattr(module, key, nn.Parameter(getattr(module, key).to("meta"), requires_grad=False))

    for module in sources:
        module.register_forward_pre_hook(load)
        module.register_forward_hook(drop)
    return model
