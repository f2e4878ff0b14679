"""ZeRO checkpoint -> Hugging Face folder.

Reads the fp32 master weights from DeepSpeed's files at any stage, writes safetensors with each tied tensor once, and
proves the result: plain transformers must give the probe batch the loss that the engine recorded when it saved.

DeepSpeed's own zero_to_fp32 refuses T5 with safetensors (the shared embedding appears under four names) and unpickles
freely; here files are loaded with weights_only and the three classes of ALLOWED.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from bigchem import strict
from bigchem.errors import UserError
from bigchem.tasks import TASKS
from bigchem.train.checkpoint import PROOF, Manifest, latest, step_name

TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 2e-2}
"""Largest relative difference between the engine's probe loss, in the run's precision, and transformers' in fp32."""

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Exported:
    """A model folder and its proof: the probe batch's loss by transformers, and what the engine recorded."""

    model_dir: Path
    checkpoint: Path
    step: int
    tokens: int
    loss: float
    recorded: float

    def proof(self) -> dict[str, Any]:
        """The proof as plain data."""
        fields = ("step", "tokens", "loss", "recorded")
        return {"checkpoint": str(self.checkpoint), **{name: getattr(self, name) for name in fields}}

    def told(self) -> str:
        """The proof in a line."""
        return (
            f"{self.model_dir}: step {self.step}, probe loss {self.loss:.6f} (the engine recorded {self.recorded:.6f})"
        )


def export(
    source: Path, out: Path, *, step: int | None = None, bf16: bool = False, overwrite: bool = False
) -> Exported:
    """Writes the newest checkpoint of a run (or the one after `step` steps, or the given checkpoint) to `out`.

    UserError if the checkpoint is missing or damaged, if `out` exists, or if the result does not have the probe's loss.
    """
    checkpoint, run_dir = find_checkpoint(source, step)
    if out.exists() and not overwrite:
        raise UserError("exists already", str(out), "choose another folder, or --overwrite")
    if out.exists() and not (out / PROOF).is_file():
        raise UserError("is not a model that was exported here", str(out), "choose another folder")
    manifest = Manifest.read(checkpoint)
    manifest.check_files(checkpoint)
    weights = read_weights(checkpoint, manifest)
    with strict.replace_folder(out) as partial:
        _write(weights, manifest, run_dir, partial, torch.bfloat16 if bf16 else torch.float32)
        loss = verify(partial, manifest, loose=bf16)
        made = Exported(out, checkpoint, manifest.step, manifest.tokens, loss, manifest.probe["loss"])
        strict.write_atomically(partial / PROOF, json.dumps(made.proof(), indent=1))
    return made


def is_newest(model_dir: Path, run_dir: Path) -> bool:
    """Whether a model folder was exported from the run's newest checkpoint."""
    newest = latest(run_dir / "checkpoints")
    if newest is None or not (model_dir / PROOF).is_file():
        return False
    proof: dict[str, Any] = json.loads((model_dir / PROOF).read_text(encoding="utf-8"))
    return bool(proof["step"] == Manifest.read(newest).step)


def find_checkpoint(source: Path, step: int | None = None) -> tuple[Path, Path]:
    """(checkpoint folder, run folder) for a run folder or a checkpoint folder."""
    if (source / "manifest.json").is_file():
        return source, source.parent.parent
    checkpoints = source / "checkpoints"
    chosen = latest(checkpoints) if step is None else checkpoints / step_name(step)
    if chosen is None or not chosen.is_dir():
        what = "no published checkpoint" if step is None else f"no checkpoint after step {step}"
        raise UserError(what, str(source), "give a run folder or a folder checkpoints/step_N")
    return chosen, source


def read_weights(checkpoint: Path, manifest: Manifest) -> Weights:
    """The fp32 master weights of a checkpoint, by parameter name."""
    if manifest.zero_stage == 0:
        return _stage0(checkpoint)
    optimizer = [_load(p)["optimizer_state_dict"] for p in _rank_files(checkpoint, "optim_states", manifest)]
    prefix = "zero_pp_rank_0_" if manifest.zero_stage == 3 else ""
    shapes: dict[str, torch.Size] = {}
    for group in _load(checkpoint / f"{prefix}mp_rank_00_model_states.pt")["param_shapes"]:
        shapes.update(group)
    return _stage3(optimizer, shapes) if manifest.zero_stage == 3 else _stage12(optimizer, shapes)


def _stage0(checkpoint: Path) -> Weights:
    """Whole weights; in bf16 the masters are in the optimizer's lists, in the order of its parameter groups."""
    from bigchem.train.optimizer import group_names

    states = _load(checkpoint / "mp_rank_00_model_states.pt")
    weights: Weights = dict(states["module"])
    masters = states["optimizer"].get("fp32_groups")
    if masters is not None:
        names = chain(*group_names((name, w.ndim) for name, w in weights.items()))
        weights.update(zip(names, chain(*masters), strict=True))  # however many groups there are: they keep the order
    return {name: w.float() for name, w in weights.items()}


def _stage12(ranks: list[dict[str, Any]], shapes: dict[str, torch.Size]) -> Weights:
    """Each rank holds a contiguous piece of each group's flat tensor; its slice mappings say what lies where."""
    pieces: dict[str, list[torch.Tensor]] = {name: [] for name in shapes}
    for rank in ranks:
        for flat, mapping in zip(rank["single_partition_of_fp32_groups"], rank["param_slice_mappings"], strict=True):
            for name, fragment in mapping.items():
                pieces[name].append(flat[fragment.start : fragment.start + fragment.numel])
    return {name: torch.cat(pieces[name]).view(shape) for name, shape in shapes.items()}


def _stage3(ranks: list[dict[str, Any]], shapes: dict[str, torch.Size]) -> Weights:
    """Each parameter is cut into world_size equal pieces, the last one padded; a rank's pieces lie in parameter
    order."""
    flats = [torch.cat([f.view(-1) for f in rank["fp32_flat_groups"]]) for rank in ranks]
    weights: Weights = {}
    offset = 0
    for name, shape in shapes.items():
        piece = -(-shape.numel() // len(flats))
        whole = torch.cat([flat[offset : offset + piece] for flat in flats])
        weights[name] = whole[: shape.numel()].view(shape)
        offset += piece
    return weights


def _rank_files(checkpoint: Path, kind: str, manifest: Manifest) -> list[Path]:
    prefix = "bf16_" if manifest.precision == "bf16" else ""
    return [checkpoint / f"{prefix}zero_pp_rank_{rank}_mp_rank_00_{kind}.pt" for rank in range(manifest.world_size)]


def _load(path: Path) -> dict[str, Any]:
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    allowed = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]
    try:
        with torch.serialization.safe_globals(allowed):
            table: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise UserError("a file of the checkpoint is missing", str(path)) from None
    except Exception as error:  # torch raises several kinds for damaged or hostile files
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise UserError(f"cannot load safely: {reason}", str(path)) from error
    return table


def _write(weights: Weights, manifest: Manifest, run_dir: Path, folder: Path, dtype: torch.dtype) -> None:
    from bigchem.model.pretrained import write_weights

    tokenizer = run_dir / "tokenizer"
    if not tokenizer.is_dir():
        raise UserError("the run folder has no tokenizer", str(tokenizer), "export from the folder of a run of ours")
    write_weights({name: weight.to(dtype) for name, weight in weights.items()}, manifest.model, folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    strict.write_atomically(folder / "README.md", _card(manifest, run_dir))


def _card(manifest: Manifest, run_dir: Path) -> str:
    prompts = "\n".join(f"| {t.name} | {t.source_domain} -> {t.target_domain} | `{t.prompt}` |" for t in TASKS.values())
    return (
        f"# {run_dir.name}\n\nA T5 for chemistry and language, trained by bigchem for {manifest.step} steps "
        f"({manifest.position} examples, {manifest.tokens} tokens) on data `{manifest.data_fingerprint}`.\n\n"
        f"| task | domains | prompt |\n|---|---|---|\n{prompts}\n\n"
        f"Loss of the probe batch recorded by the training engine: {manifest.probe['loss']:.6f}\n"
    )


def verify(folder: Path, manifest: Manifest, *, loose: bool = False) -> float:
    """The probe's loss by plain transformers; UserError if it is not what the engine recorded."""
    loss = transformers_loss(folder, manifest.probe["sources"], manifest.probe["targets"])
    recorded = manifest.probe["loss"]
    tolerance = TOLERANCE["bf16" if loose else manifest.precision]
    if not abs(loss - recorded) <= tolerance * max(1.0, abs(recorded)):  # so that NaN fails
        raise UserError(
            f"the exported model gives the probe batch a loss of {loss:.6f}, the engine recorded {recorded:.6f}",
            str(folder),
            "the checkpoint or this conversion is wrong: do not use the result; report it",
        )
    return loss


@torch.no_grad()
def transformers_loss(folder: Path, sources: list[list[int]], targets: list[list[int]]) -> float:
    """Mean loss per target token of padded examples, by transformers in fp32."""
    from transformers import T5ForConditionalGeneration
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def padded(rows: list[list[int]], value: int) -> torch.Tensor:
        tensors = [torch.tensor(row) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

    mask = padded([[1] * len(s) for s in sources], 0)
    output = model(input_ids=padded(sources, 0), attention_mask=mask, labels=padded(targets, -100))
    return float(output.loss)
