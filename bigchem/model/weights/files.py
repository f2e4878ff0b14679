"""Which files hold a Hugging Face folder's weights, and which tensors their headers list. Needs no torch."""

import json
import struct
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bigchem.base import git_lfs, json_file
from bigchem.base.errors import UserError
from bigchem.base.json_file import RecordError
from bigchem.model.parameters import parameter_shapes
from bigchem.model.presets import Shape

FILES = ("model.safetensors", "pytorch_model.bin")
"""Weights in a single file, in order of preference; if sharded, FILE.index.json names the shards."""
MAX_HEADER_BYTES = 100_000_000
"""The safetensors format's limit."""
HEAD = "lm_head.weight"
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""A table in old checkpoints that T5 never uses."""
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Names under which checkpoints repeat shared.weight."""
WRAPPERS = {
    "module.": ("DistributedDataParallel or DeepSpeed", "save model.module, or "),
    "_orig_mod.": ("torch.compile", "save model._orig_mod, or "),
    "transformer.": ("T5ForSequenceClassification", "use a checkpoint of T5ForConditionalGeneration, or "),
}
"""Prefixes of all names: what adds them, and the remedy."""

Shapes = dict[str, tuple[int, ...]]


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights. UserError if there are none or the index is malformed or points elsewhere."""
    for single in FILES:
        index = folder / f"{single}.index.json"
        if index.is_file():
            try:
                table = json_file.load_object(index)
                files = json_file.as_kind(dict[str, str], table.get("weight_map"), "weight_map")
            except RecordError as error:
                hint = error.hint or "fetch or copy it again"
                raise UserError(f"not an index of weights: {error.what}", str(index), hint) from None
            names = sorted(set(files.values()))
            if any(Path(name).name != name for name in names):
                raise UserError("names files outside its folder", str(index), "do not use this model")
            return [folder / name for name in names]
        if (folder / single).is_file():
            return [folder / single]
    hint = "convert other formats with transformers: from_pretrained, then save_pretrained"
    raise UserError(f"holds no weights: no {' or '.join(FILES)}, single or sharded", str(folder), hint)


@contextmanager
def require_file(path: Path) -> Iterator[None]:
    """UserError for a missing file."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path.name} is missing", str(path.parent), "fetch or copy the folder again") from None


def check_weights(folder: Path, shape: Shape) -> bool:
    """UserError unless all weight files exist and hold a model of this shape; weights are not read. Returns whether
    tensors could be compared: a pickle does not list its tensors before it is loaded."""
    found: Shapes = {}
    comparable = True
    for path in weight_files(folder):
        with require_file(path):
            git_lfs.refuse_pointer(path)
            if path.suffix == ".safetensors":
                found |= safetensors_shapes(path)
            elif path.stat().st_size == 0:
                raise UserError(f"{path.name} is empty", str(folder), "fetch or copy the folder again")
            else:
                comparable = False
    if comparable:
        refuse_other_shapes(without_copies(found, shape), shape, str(folder))
    return comparable


def safetensors_shapes(path: Path) -> Shapes:
    """Names and shapes of a safetensors file's tensors, from its header. UserError if damaged or truncated."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            table = json.loads(file.read(length))
        tensors = {name: entry for name, entry in table.items() if name != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if 8 + length + end != size:
            raise ValueError(f"it has {size:,} bytes, its header says {8 + length + end:,}")
        return {name: tuple(map(int, entry["shape"])) for name, entry in tensors.items()}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        what = f"cannot read {path.name}: {error}"
        raise UserError(what, str(path.parent), "fetch or copy it again") from None


def without_copies(found: Mapping[str, tuple[int, ...]], shape: Shape) -> Shapes:
    """Drops names under which checkpoints repeat the shared embedding; adds a missing head, which then equals the
    embedding."""
    rest = {name: dims for name, dims in found.items() if name != UNUSED}
    for name in (*COPIES, *((HEAD,) if shape.tied else ())):
        copy = rest.pop(name, None)
        if copy is not None:
            rest.setdefault("shared.weight", copy)
    if not shape.tied and "shared.weight" in rest:
        rest.setdefault(HEAD, rest["shared.weight"])
    return rest


def refuse_other_shapes(found: Mapping[str, tuple[int, ...]], shape: Shape, where: str) -> None:
    """UserError unless the tensors match a model of this shape."""
    expected = parameter_shapes(shape)
    if prefix := _prefix(found):
        by, remedy = next((why for start, why in WRAPPERS.items() if prefix.startswith(start)), ("a wrapper", ""))
        what = f"its tensor names begin with '{prefix}', which {by} adds"
        others = sum(not name.startswith(prefix) for name in found)
        drop = f", without the {others} that lack it" if others else ""
        raise UserError(what, where, f"{remedy}save the tensors under name.removeprefix('{prefix}'){drop}")
    if found and not any(name.startswith("decoder.") for name in found):
        what = "holds only an encoder: no decoder tensors"
        raise UserError(what, where, "use a checkpoint with both, as T5ForConditionalGeneration saves it")
    differing = [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]
    if differing:
        key = differing[0]
        more = f" (and {len(differing) - 1} more differ)" if len(differing) > 1 else ""
        what = f"{key} has shape {found.get(key, 'none')}, config.json requires {expected.get(key, 'none')}{more}"
        raise UserError(what, where, "config.json and weights must be from the same checkpoint")


def _prefix(found: Collection[str]) -> str:
    """What stands before the names of T5's layers; empty: nothing."""
    if any(name.startswith(("encoder.block.", "decoder.block.")) for name in found):
        return ""
    at = ((name, name.find(f"{side}.block.")) for name in found for side in ("encoder", "decoder"))
    return next((name[:start] for name, start in at if start > 0), "")
