"""Small training runs, as functions that ranks can run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from bigchem.base.toml import validate
from bigchem.config import RunConfig
from bigchem.launch.runs.prepare import prepare
from bigchem.train.checkpoint.store import step_name
from bigchem.train.loop import train


def config_of(runs: Path, data_dir: Path, name: str, **sections: dict[str, Any]) -> RunConfig:
    """A run of the smallest model: six steps, fp32, no dropout, checkpoints every three steps."""
    table: dict[str, Any] = {
        "name": name,
        "runs": str(runs),
        "model": {"preset": "sweep-0.2m", "dropout": 0.0},
        "data": {
            "path": str(data_dir),
            "global_tokens": 1500,
            "micro_tokens": 600,
            "max_source_tokens": 300,
            "max_target_tokens": 300,
        },
        "train": {"steps": 6, "precision": "fp32", "ds_config": "zero2", "log_every": 1, "worst_case": False},
        "optimizer": {"lr": 1e-3},
        "schedule": {"warmup_steps": 2},
        "checkpoint": {"every": 3, "keep": 9},
        "evaluate": {"at_end": False},
    }
    for section, fields in sections.items():
        table[section] = {**table.get(section, {}), **fields}
    return validate(RunConfig, table, name)


def losses(config: RunConfig) -> list[float]:
    """Loss of every step in the run folder."""
    lines = (config.run_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@torch.no_grad()
def transformers_loss(folder: Path, sources: list[list[int]], targets: list[list[int]]) -> float:
    """Mean loss per target token of padded examples in one batch, by transformers' from_pretrained in fp32."""
    from transformers import T5ForConditionalGeneration

    model = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()

    def padded(rows: list[list[int]], value: int) -> torch.Tensor:
        tensors = [torch.tensor(row) for row in rows]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

    mask = padded([[1] * len(s) for s in sources], 0)
    output = model(input_ids=padded(sources, 0), attention_mask=mask, labels=padded(targets, -100))
    return float(output.loss)


def samples_of(config: RunConfig) -> list[dict[str, Any]]:
    """Sample predictions of every validation in the run folder."""
    return [json.loads(line) for line in (config.run_dir / "samples.jsonl").read_text().splitlines()]


def transformers_greedy(model_dir: Path, source: str) -> str:
    """transformers' greedy decoding of a text, with as many tokens as samples have."""
    from transformers import AutoModelForSeq2SeqLM

    from bigchem.data.text.tokenizer import EOS, Tokenizer
    from bigchem.train.samples import MAX_TOKENS

    tokenizer = Tokenizer.load(model_dir)
    model = AutoModelForSeq2SeqLM.from_pretrained(model_dir)
    ids = torch.tensor(tokenizer.encode_batch([source]))
    return tokenizer.decode_batch(model.generate(ids, max_new_tokens=MAX_TOKENS, eos_token_id=EOS).tolist())[0]


def train_here(config: RunConfig) -> int:
    """Trains on this rank. Returns the number of steps done."""
    from torch import distributed as dist

    if dist.get_rank() == 0:
        prepare(config)
    dist.barrier()
    return train(config, torch.device("cpu")).steps


def train_in_two_parts(config: RunConfig) -> int:
    """Trains to the end, then again from the middle checkpoint, as after a crash."""
    from torch import distributed as dist

    train_here(config)
    dist.barrier()
    if dist.get_rank() == 0:
        again = config.model_copy(update={"name": config.name + "-resumed"})
        shutil.copytree(config.run_dir, again.run_dir)
        shutil.rmtree(again.run_dir / "checkpoints" / "step_00000006")
    dist.barrier()
    return train_here(config.model_copy(update={"name": config.name + "-resumed"}))


def all_in_two_parts(configs: list[RunConfig]) -> list[int]:
    """`train_in_two_parts` of several runs in the same processes."""
    return [train_in_two_parts(config) for config in configs]


def train_all(configs: list[RunConfig]) -> list[int]:
    """Trains several runs one after another in the same processes."""
    return [train_here(config) for config in configs]


def at_step(config: RunConfig, step: int, runs: Path, name: str, **train: Any) -> RunConfig:
    """A copy of a run as of `step` steps, under another name and with other [train] fields."""
    table = config.model_dump()
    again = RunConfig.model_validate({**table, "runs": str(runs), "name": name, "train": {**table["train"], **train}})
    shutil.copytree(config.run_dir, again.run_dir)
    for checkpoint in (again.run_dir / "checkpoints").glob("step_*"):
        if checkpoint.name > step_name(step):
            shutil.rmtree(checkpoint)
    return again
