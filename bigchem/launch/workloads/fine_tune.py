"""`bigchem fine-tune`: from files to a trained and evaluated model, with settings that follow from the data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.config import RunConfig
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import BuildConfig, TokenizerConfig, load_recipe, recipe_hash
from bigchem.data.init.write_recipe import write_recipe
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.evaluate.protocol.definitions import check_metrics
from bigchem.model import presets
from bigchem.model.weights import hub
from bigchem.tasks import FILE, Task
from bigchem.train.checkpoint.store import PROOF

FEW = 20_000
AUGMENT = 10
"""Fewer than 1,000 training rows get other spellings of their molecules: AUGMENT each, and about FEW rows in all."""
MAX_TOKENS = 1024
"""Cap on either side; longer examples are cut."""
STEPS_PER_EPOCH = 20
"""At least this many, so that small data take small steps."""
EPOCHS, MAX_EPOCHS, ENOUGH_TOKENS = 3, 60, 2_400_000
"""Length: 3 epochs; with fewer tokens than ENOUGH_TOKENS, up to 60."""
VALIDATIONS, PATIENCE = 40, 8
"""Validations of the whole length, and how many without a better loss end the run. Not for numbers and labels: their
loss is soon worse while they still improve (docs/decisions.md)."""
SMOOTHING = 0.1
LR = {"fresh": 2e-3, "pretrained": 3e-4}


@dataclass(frozen=True)
class Figures:
    """What the settings follow from. longest: [source, target] tokens. tokens, rows: of the training rows. validated,
    tested: whether there are rows for it. texts: whether any target is more than a number or a label."""

    rows: int
    tokens: int
    longest: tuple[int, int]
    validated: bool
    tested: bool
    texts: bool


def prepare_data(
    files: Sequence[str], out: Path, init_from: str | None, progress: Progress, overrides: Sequence[str] = ()
) -> Data:
    """The data folder of some files, or of a recipe, in OUT/data. The recipe of files is written to OUT/recipe.toml,
    once: an existing one, perhaps corrected, is used."""
    if len(files) == 1 and files[0].endswith(".toml"):
        recipe = Path(files[0])
    else:
        recipe = out / "recipe.toml"
        if recipe.is_file():
            progress.say(f"{recipe}: exists, used as it is")
        else:
            write_recipe(files, recipe, to_predict=True)
            progress.say(f"{recipe}: written; correct it and repeat the command if a guess is wrong")
    config = load_recipe(recipe, tuple(overrides))
    check_metrics(config.known_tasks.scored.values())
    if init_from is not None:
        config = config.model_copy(update={"tokenizer": _tokenizer(init_from)})
    config = _augmented(config, progress)
    folder = out / "data"
    changed = (folder / "index.json").is_file() and Data(folder).index.recipe != recipe_hash(config)
    if changed and (run := out / "run").is_dir():
        what = "was started on other data: the recipe or its files have changed since, or --from"
        raise UserError(what, str(run), f"take another folder with --out, or remove {run}")
    build(config, folder, progress, overwrite=changed)
    return Data(folder)


def settings(data: Data, out: Path, *, preset: str, init_from: str | None, gpu: bool) -> RunConfig:
    """The configuration of a run on the data, in OUT/run."""
    return configured(figures(data), str(data.path), out, preset=preset, init_from=init_from, gpu=gpu)


def configured(found: Figures, path: str, out: Path, *, preset: str, init_from: str | None, gpu: bool) -> RunConfig:
    """The configuration that follows from figures of the data at `path`. Pure."""
    caps = [min(MAX_TOKENS, 8 * math.ceil(longest / 8)) for longest in found.longest]
    per_step = min(65536 if gpu else 16384, max(2048, found.tokens // STEPS_PER_EPOCH))
    micro = max(sum(caps), min(per_step, 16384 if gpu else 4096))
    global_tokens = max(micro, per_step)
    epochs = min(MAX_EPOCHS, max(EPOCHS, ENOUGH_TOKENS / max(1, found.tokens)))
    steps = max(100, round(epochs * found.tokens / global_tokens))
    table: dict[str, Any] = {
        "name": "run",
        "runs": str(out),
        "model": {"preset": preset} if init_from is None else {"init_from": init_from},
        "data": {
            "path": path,
            "global_tokens": global_tokens,
            "micro_tokens": micro,
            "max_source_tokens": caps[0],
            "max_target_tokens": caps[1],
            "over_caps": "cut",
        },
        "train": {
            "steps": steps,
            "label_smoothing": SMOOTHING,
            "precision": "bf16" if gpu else "fp32",
            "ds_config": "zero2" if gpu else "zero1",
        },
        "optimizer": {"lr": LR["fresh" if init_from is None else "pretrained"], "weight_decay": 0.01},
        "schedule": {"kind": "cosine", "warmup_steps": max(10, steps // 20), "final": 0.05},
        "evaluate": {
            "split": "test" if found.tested else "valid",
            "at_end": found.tested or found.validated,
            "max_new_tokens": caps[1],
            "bootstrap": 1000,
        },
    }
    if found.validated:
        until = {"patience": PATIENCE} if found.texts else {"keep_best": False}
        table["validation"] = {"every": max(10, steps // VALIDATIONS), "samples": 1, **until}
    table["checkpoint"] = {"every": max(100, steps // 4)}
    return toml.validate(RunConfig, table, "fine-tune")


def figures(data: Data) -> Figures:
    """Rows and lengths of a data folder. UserError without training rows."""
    rows = data.index.rows("train")
    if not rows:
        raise UserError("no training rows", str(data.path), "give more rows, or a recipe with smaller fractions")
    if not data.tasks.scored.only(rows):
        what = f"nothing to predict: only {', '.join(rows)}"
        raise UserError(
            what, str(data.path), "the recipe says why no other column is used: correct the files or the recipe"
        )
    total, longest = 0, np.zeros(2, dtype=np.int64)
    for task in rows:
        lengths = data.split("train", task).prompt_lengths.reshape(-1, 2)
        total += int(lengths.astype(np.int64).sum()) // len(data.tasks[task].prompts)
        longest = np.maximum(longest, lengths.max(axis=0))
    every = {split: bool(data.index.rows(split)) for split in ("valid", "test")}
    texts = any(task.target_domain not in ("number", "label", "labels") for task in data.tasks.only(rows).values())
    return Figures(sum(rows.values()), total, (int(longest[0]), int(longest[1])), every["valid"], every["test"], texts)


def chosen(config: RunConfig, data: Data) -> dict[str, Any]:
    """What was chosen, and from what, for people and `--json`."""
    found = figures(data)
    shape = presets.shape(config.model.preset, Tokenizer.load(data.tokenizer_dir).vocab_size)
    return {
        "rows": {split: data.index.rows(split) for split in ("train", "valid", "test")},
        "tokens": found.tokens,
        "longest": list(found.longest),
        "epochs": round(config.train.steps * config.data.global_tokens / max(1, found.tokens), 1),
        "steps": config.train.steps,
        "global_tokens": config.data.global_tokens,
        "caps": [config.data.max_source_tokens, config.data.max_target_tokens],
        "lr": config.optimizer.lr,
        "warmup_steps": config.schedule.warmup_steps,
        "validate_every": config.validation.every,
        "evaluate_on": config.evaluate.split if config.evaluate.at_end else None,
        "model": config.model.init_from or config.model.preset,
        "parameters": None if config.model.init_from else presets.num_parameters(shape),
    }


def _tokenizer(init_from: str) -> TokenizerConfig:
    """The model's own: unchanged if bigchem exported it, T5's with chemistry otherwise."""
    if any((Path(init_from) / name).is_file() for name in (FILE, PROOF)):
        return TokenizerConfig(folder=str(Path(init_from).resolve()))
    return TokenizerConfig(t5=str(hub.fetched(init_from, weights=False)))


def _augmented(config: BuildConfig, progress: Progress) -> BuildConfig:
    """The recipe with other spellings of molecules where there are few rows and it asks for none."""
    from bigchem.data.init.trial import TRIED, try_source

    trials = [try_source(config, source) for source in config.sources]
    rows = sum(trial.splits["train"] for trial in trials)
    if rows >= TRIED or any(source.augment for source in config.sources) or not all(trial.whole for trial in trials):
        return config
    count = min(AUGMENT, FEW // max(1, rows))
    tasks = config.known_tasks
    sources = tuple(
        source.model_copy(update={"augment": count})
        if source.split in (None, "train") and any(map(_spelled, source.chosen(tasks).values()))
        else source
        for source in config.sources
    )
    progress.say(f"{rows:,} training rows: up to {count} more spellings of each source molecule")
    return config.model_copy(update={"sources": sources})


def _spelled(task: Task) -> bool:
    return task.source_domain in ("chemistry", "reactants") and not task.spans
