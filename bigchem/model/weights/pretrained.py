"""Loads a Hugging Face T5 into our model, and saves ours in a folder that transformers loads."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bigchem.base import atomic, git_lfs
from bigchem.base.errors import UserError
from bigchem.base.printable import one_line
from bigchem.model.presets import Shape, to_hf_config, write_configs
from bigchem.model.t5 import PackedT5
from bigchem.model.weights import hub
from bigchem.model.weights.files import (
    COPIES,
    HEAD,
    UNUSED,
    check_weights,
    refuse_other_shapes,
    require_file,
    weight_files,
    without_copies,
)
from bigchem.model.weights.hf_config import read_shape


def load_pretrained(
    name: str | Path,
    dropout: float = 0.1,
    backends: Mapping[str, str] | None = None,
    *,
    checkpoint_activations: bool = False,
    num_tasks: int = 1,
) -> PackedT5:
    """A model with the shape and weights (as fp32) of a T5, v1.1, Flan, MolT5, UL2 or mT5: a Hugging Face folder, or a
    name on the hub (google-t5/t5-small), see hub.fetched. A missing head that is not scaled starts as a copy of the
    embedding, to which transformers 5 ties it.

    fp32 weights stay in the page cache until they are written to; others are converted one by one, so the peak is one
    copy. UserError if it is not available or not a T5, or if files are missing, damaged or do not match config.json, or
    hold a value that is not finite.
    """
    folder = hub.fetched(str(name))
    shape = read_shape(folder)
    with torch.device("meta"):
        model = PackedT5(shape, dropout, backends, checkpoint_activations=checkpoint_activations, num_tasks=num_tasks)
    fill(model, folder)
    return model


def fill(model: PackedT5, folder: Path) -> None:
    """Gives a model on the meta device a folder's weights, as `load_pretrained` does."""
    weights = read_weights(folder, model.shape)
    model.load_state_dict({name: weight.float() for name, weight in weights.items()}, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def read_weights(folder: Path, shape: Shape) -> dict[str, Tensor]:
    """A folder's tensors in the file's dtype, by the model's names, memory-mapped where the format allows. UserError as
    in `load_pretrained`."""
    weights = dict(weights_of(folder))
    _drop_copies(weights, shape.tied, str(folder))
    if not shape.tied and "shared.weight" in weights:
        weights.setdefault(HEAD, weights["shared.weight"].clone())  # transformers 5 ties heads that it does not scale
    refuse_other_shapes({name: tuple(tensor.shape) for name, tensor in weights.items()}, shape, str(folder))
    _refuse_not_finite(weights, str(folder))
    return weights


def save_pretrained(model: PackedT5, folder: str | Path) -> None:
    """Writes the model in its dtype as a Hugging Face folder. UserError if folder exists and is not empty."""
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError("already exists", str(folder), "choose another folder")
    with atomic.replace_folder(folder) as partial:
        write_weights(model.state_dict(), to_hf_config(model.shape, model.encoder.dropout), partial)


def write_weights(weights: Mapping[str, Tensor], hf_config: Mapping[str, Any], folder: Path) -> None:
    """Writes config.json, generation_config.json and the weights, of one dtype, as safetensors, sharded if large."""
    from huggingface_hub import save_torch_state_dict

    save_torch_state_dict({name: weight.detach().contiguous() for name, weight in weights.items()}, folder)
    write_configs(hf_config, str(next(iter(weights.values())).dtype).removeprefix("torch."), folder)


def weights_of(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a folder, file by file, memory-mapped where the format allows."""
    for path in weight_files(folder):
        with _readable(path):
            yield from _read(path)


def check_folder(folder: Path) -> None:
    """UserError unless config.json is a T5's and the weight files exist and, as far as their headers say, hold such a
    model. Weights are not read."""
    check_weights(folder, read_shape(folder))


def check_pickles(folder: Path, shape: Shape) -> None:
    """UserError unless a folder's pickles hold a model of this shape. They are memory-mapped; pickles from before torch
    1.6 cannot be, and are not checked."""
    paths = weight_files(folder)
    if all(zipfile.is_zipfile(path) for path in paths):
        found = {name: tuple(tensor.shape) for path in paths for name, tensor in _read(path)}
        refuse_other_shapes(without_copies(found, shape), shape, str(folder))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        with require_file(path):
            git_lfs.refuse_pointer(path)
            yield
    except SafetensorError as error:
        raise UserError(f"cannot read {path.name}: {error}", str(path.parent), "fetch or copy it again") from None


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                yield key, file.get_tensor(key)
        return
    try:
        # Checkpoints from before torch 1.6 (t5-11b's) are bare pickles, which cannot be mapped.
        table = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        if not all(isinstance(value, Tensor) for value in table.values()):
            raise TypeError("it holds more than tensors")
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises several kinds for damaged or hostile files
        raise UserError(
            f"cannot load safely: {one_line(error)}", str(path), "use safetensors, or another source"
        ) from None
    yield from table.items()


def _refuse_not_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """UserError for the first tensor with a NaN or an infinity. Its extremes are computed without a copy."""
    for name, weight in weights.items():
        lowest, highest = weight.float().aminmax()
        if not (lowest.isfinite() and highest.isfinite()):
            raise UserError(f"{name} has values that are not finite", where, "use another checkpoint")


def _drop_copies(weights: dict[str, Tensor], tied: bool, where: str) -> None:
    """Removes names under which checkpoints repeat the shared embedding, and a table that T5 never uses."""
    weights.pop(UNUSED, None)
    for name in (*COPIES, *((HEAD,) if tied else ())):
        copy = weights.pop(name, None)
        weights.setdefault("shared.weight", copy) if copy is not None else None
        if copy is not None and not torch.equal(copy.float(), weights["shared.weight"].float()):
            raise UserError(f"{name} differs from shared.weight", where, "config.json says that they are tied")
