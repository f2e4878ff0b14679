"""ZeRO checkpoint -> Hugging Face folder.

Reads the fp32 master weights from DeepSpeed's files at any stage, writes safetensors with each tied tensor once, and
proves the result: plain transformers must give the probe batch the loss that the engine recorded when it saved.

DeepSpeed's own zero_to_fp32 refuses T5 with safetensors (the shared embedding appears under four names) and unpickles
freely; bigchem/train/zero_files.py does neither.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bigchem import strict
from bigchem.errors import UserError
from bigchem.tasks import TASKS
from bigchem.train.best import chosen
from bigchem.train.checkpoint import PROOF, Manifest, step_name
from bigchem.train.zero_files import MASTER, ZeroFiles

TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 2e-2}
"""Largest relative difference between the engine's probe loss, in the run's precision, and transformers' in fp32."""

EMA = "ema"
"""Key of the running mean among the optimizer's states (train/optimizer.py)."""

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Exported:
    """A model folder and its proof: the probe batch's loss by transformers, and what the engine recorded.

    ema_loss: where the folder holds the running mean of the weights, the probe's loss with it. The engine never
    computed with that: loss and recorded are those of the weights, which are read in the same way.
    """

    model_dir: Path
    checkpoint: Path
    step: int
    tokens: int
    loss: float
    recorded: float
    ema_loss: float | None = None

    def proof(self) -> dict[str, Any]:
        """The proof as plain data."""
        fields = ("step", "tokens", "loss", "recorded", "ema_loss")
        return {"checkpoint": str(self.checkpoint), **{name: getattr(self, name) for name in fields}}

    def told(self) -> str:
        """The proof in a line."""
        proof = f"probe loss {self.loss:.6f} (the engine recorded {self.recorded:.6f})"
        if self.ema_loss is None:
            return f"{self.model_dir}: step {self.step}, {proof}"
        mean = f"running mean of the weights, probe loss {self.ema_loss:.6f}"
        return f"{self.model_dir}: step {self.step}, {mean}; the weights themselves, read in the same way: {proof}"


def export(
    source: Path, out: Path, *, step: int | None = None, bf16: bool = False, overwrite: bool = False, ema: bool = False
) -> Exported:
    """Writes a checkpoint of a run to `out`: the best where the run keeps it (validation.keep_best), else the newest;
    or the one after `step` steps, or the given checkpoint. ema: the running mean of the weights (optimizer.ema).

    UserError if the checkpoint is missing or damaged, if `out` exists, if the result does not have the probe's loss, or
    if a running mean is asked for where there is none.
    """
    checkpoint, run_dir = find_checkpoint(source, step)
    if out.exists() and not overwrite:
        raise UserError("exists already", str(out), "choose another folder, or --overwrite")
    if out.exists() and not (out / PROOF).is_file():
        raise UserError("is not a model that was exported here", str(out), "choose another folder")
    manifest = Manifest.read(checkpoint)
    manifest.check_files(checkpoint)
    files, dtype = ZeroFiles(checkpoint, manifest), torch.bfloat16 if bf16 else torch.float32
    if ema and EMA not in files.keys:
        raise UserError(
            "holds no running mean of the weights", str(checkpoint), "train with optimizer.ema, or leave --ema"
        )
    with strict.replace_folder(out) as partial:
        _write(read_weights(files), manifest, run_dir, partial, dtype)
        loss = verify(partial, manifest, loose=bf16)
        if ema:
            _write(read_weights(files, EMA), manifest, run_dir, partial, dtype)
        ema_loss = _probe_loss(partial, manifest) if ema else None
        made = Exported(out, checkpoint, manifest.step, manifest.tokens, loss, manifest.probe["loss"], ema_loss)
        strict.write_atomically(partial / "README.md", _card(made, manifest, run_dir))
        strict.write_atomically(partial / PROOF, json.dumps(made.proof(), indent=1))
    return made


def is_newest(model_dir: Path, run_dir: Path) -> bool:
    """Whether a model folder was exported from the checkpoint that stands for the run now."""
    found = chosen(run_dir / "checkpoints")
    if found is None or not (model_dir / PROOF).is_file():
        return False
    proof: dict[str, Any] = json.loads((model_dir / PROOF).read_text(encoding="utf-8"))
    return bool(proof["step"] == Manifest.read(found).step and proof["ema_loss"] is None)


def model_folder(path: Path) -> Path:
    """A consolidated model's folder: of a run the one in it, made anew unless it is of the newest checkpoint; else the
    path itself. UserError if there is no model."""
    if (path / "config.toml").is_file():
        if not is_newest(path / "model", path):
            export(path, path / "model", overwrite=True)
        return path / "model"
    if not (path / "config.json").is_file():
        hint = "give a run folder, or one that tools/consolidate.py has made"
        raise UserError("no model here: config.json is missing", str(path), hint)
    return path


def find_checkpoint(source: Path, step: int | None = None) -> tuple[Path, Path]:
    """(checkpoint folder, run folder) for a run folder or a checkpoint folder."""
    if (source / "manifest.json").is_file():
        return source, source.parent.parent
    checkpoints = source / "checkpoints"
    found = chosen(checkpoints) if step is None else checkpoints / step_name(step)
    if found is None or not found.is_dir():
        what = "no published checkpoint" if step is None else f"no checkpoint after step {step}"
        raise UserError(what, str(source), "give a run folder or a folder checkpoints/step_N")
    return found, source


def read_weights(files: ZeroFiles, key: str = MASTER) -> Weights:
    """The fp32 master weights of a checkpoint by parameter name, or what its optimizer keeps for each of them."""
    return {name: files.full(name, key) for name in files.shapes}


def _write(weights: Weights, manifest: Manifest, run_dir: Path, folder: Path, dtype: torch.dtype) -> None:
    from bigchem.model.pretrained import write_weights

    tokenizer = run_dir / "tokenizer"
    if not tokenizer.is_dir():
        raise UserError("the run folder has no tokenizer", str(tokenizer), "export from the folder of a run of ours")
    write_weights({name: weight.to(dtype) for name, weight in weights.items()}, manifest.model, folder)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)


def _card(made: Exported, manifest: Manifest, run_dir: Path) -> str:
    prompts = "\n".join(f"| {t.name} | {t.source_domain} -> {t.target_domain} | `{t.prompt}` |" for t in TASKS.values())
    return (
        f"# {run_dir.name}\n\nA T5 for chemistry and language, trained by bigchem for {manifest.step} steps "
        f"({manifest.position} examples, {manifest.tokens} tokens) on data `{manifest.data_fingerprint}`.\n\n"
        f"| task | domains | prompt |\n|---|---|---|\n{prompts}\n\n"
        f"Probe batch: {made.told().partition(', ')[2]}\n"
    )


def verify(folder: Path, manifest: Manifest, *, loose: bool = False) -> float:
    """The probe's loss by plain transformers; UserError if it is not what the engine recorded."""
    loss = _probe_loss(folder, manifest)
    recorded = manifest.probe["loss"]
    tolerance = TOLERANCE["bf16" if loose else manifest.precision]
    if not abs(loss - recorded) <= tolerance * max(1.0, abs(recorded)):  # so that NaN fails
        raise UserError(
            f"the exported model gives the probe batch a loss of {loss:.6f}, the engine recorded {recorded:.6f}",
            str(folder),
            "the checkpoint or this conversion is wrong: do not use the result; report it",
        )
    return loss


def _probe_loss(folder: Path, manifest: Manifest) -> float:
    return transformers_loss(folder, manifest.probe["sources"], manifest.probe["targets"])


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
