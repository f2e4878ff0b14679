"""Predictions of a consolidated model on a split, with transformers' generate. Resumable: a kill loses one batch."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from bigchem.base import environment, jsonl
from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.config import EvaluateConfig
from bigchem.data.packing import pack
from bigchem.data.storage.columns import Int32Array, Lengths
from bigchem.data.text.tokenizer import EOS, PAD, Tokenizer
from bigchem.evaluate.generation.label_scores import LABEL_SCORES, encoded, has_labels, label_scores
from bigchem.model.weights.pretrained import check_folder, load_pretrained
from bigchem.tasks import Task

PRECISION = "precision"
"""Key of a line whose predictions were not computed in fp32."""
PREDICTED = {"row": int, "source": str, "target": str, "predictions": list}
"""Keys of a line of predictions; those of tasks with labels also have LABEL_SCORES."""
FIRST_TOKENS = 32
"""Tokens of the first round of beam_search: 64 took a tenth longer on the public test splits."""


class Rows(Protocol):
    """Rows to predict: bigchem.data.storage.shards.TaskRows, or rows derived from them."""

    task: str
    about: Task

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> Lengths:
        """[rows, 2] source and target tokens, end tokens included."""

    def tokens(self, row: int) -> tuple[Int32Array, Int32Array]:
        """Source and target token ids of a row, end tokens included."""

    def text(self, row: int) -> tuple[str, str, str]:
        """Key, source without its prompt, and target of a row."""


@dataclass(frozen=True)
class BatchLoss:
    """rows, tokens: summed cross-entropy, in nats, and target tokens of each row of a batch."""

    rows: list[float]
    tokens: list[int]


@dataclass(frozen=True)
class Part:
    """The share of a task's rows of one rank or array task.

    batches: batch number -> rows. Batches do not depend on the number of parts, so neither do their sums or the
    predictions. max_source_tokens: longer sources are cut.
    """

    batches: dict[int, list[int]]
    max_source_tokens: int

    def source(self, task_rows: Rows, row: int) -> list[int]:
        """Token ids of a row's source, cut to max_source_tokens, end token included."""
        ids: list[int] = task_rows.tokens(row)[0].tolist()
        return ids if len(ids) <= self.max_source_tokens else [*ids[: self.max_source_tokens - 1], EOS]


def part_of(task_rows: Rows, max_rows: int, max_source_tokens: int, batch_tokens: int, part: int, parts: int) -> Part:
    """Part number `part` of `parts`. Batches, longest sources first, are dealt round-robin to balance the work."""
    count = min(len(task_rows), max_rows or len(task_rows))
    lengths = np.minimum(task_rows.lengths[:count, 0].astype(np.int64), max_source_tokens)
    by_length = np.argsort(-task_rows.lengths[:count, 0].astype(np.int64), kind="stable")
    dealt = enumerate(batches_of([int(r) for r in by_length], lengths, batch_tokens))
    return Part({number: rows for number, rows in dealt if number % parts == part % parts}, max_source_tokens)


def sources_cut(task_rows: Rows, max_rows: int, max_source_tokens: int) -> int:
    """Number of predicted rows, over all parts, whose source is cut."""
    count = min(len(task_rows), max_rows or len(task_rows))
    return int(np.count_nonzero(task_rows.lengths[:count, 0] > max_source_tokens))


def batches_of(rows: list[int], lengths: npt.NDArray[np.int64], batch_tokens: int) -> Iterator[list[int]]:
    """Batches of at most `batch_tokens` padded source tokens. rows: longest first."""
    batch: list[int] = []
    width = 0
    for row in rows:
        if batch and width * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        width = int(lengths[batch[0]]) if batch else int(lengths[row])
        batch.append(row)
    if batch:
        yield batch


def precision_on(device: torch.device, wanted: str) -> str:
    """The precision in which a device predicts. wanted: `evaluate.precision`. UserError for TF32 on a CPU."""
    if wanted == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    if wanted == "tf32" and device.type != "cuda":
        raise UserError("a CPU has no TF32", "evaluate.precision", "fp32, or auto")
    return wanted


def load_generator(model_dir: Path, device: torch.device, precision: str = "fp32") -> Any:
    """transformers' T5 of a consolidated folder, for generation. precision: fp32, tf32 or bf16.

    The beams of a source share its cross-attention cache, so reordering beams does not copy it: that was a fifth of the
    time (`_reorder_cache` is transformers' hook for this). UserError if a file of the folder is missing or damaged.
    """
    check_folder(model_dir)
    from transformers import AutoModelForSeq2SeqLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    environment.use_tf32(device, precision == "tf32")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = AutoModelForSeq2SeqLM.from_pretrained(model_dir, dtype=dtype).eval().to(device)
    model._reorder_cache = _reorder
    return model


def _reorder(cache: Any, beams: torch.Tensor) -> Any:
    cache.self_attention_cache.reorder_cache(beams)
    return cache


def padded(sources: list[list[int]], device: torch.device) -> torch.Tensor:
    """Token ids of sources, padded at the end: [sources, longest] int64."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in sources], True, PAD).to(device)


@torch.no_grad()
def beam_search(
    model: Any,
    ids: torch.Tensor,
    config: EvaluateConfig,
    deadline: float = math.inf,
    memory: torch.Tensor | None = None,
) -> torch.Tensor:
    """transformers' beam search (greedy for one beam) from ids [sources, longest]: [sources * num_return, tokens], the
    num_return best of each source, best first. They begin with the start token; ignore what follows an end token.

    transformers decodes a batch until its last row finishes; most rows finish long before. So all rows are decoded for
    a few tokens, and the unfinished ones restart, without the rest, with three times as many.

    deadline: on time.monotonic(); after it the next token raises TimeoutError. memory: the encoder's output for ids, if
    known.
    """
    memory = encoded(model, ids) if memory is None else memory
    found = ids.new_full((len(ids), config.num_return, 1 + config.max_new_tokens), PAD)
    pending, longest = torch.arange(len(ids), device=ids.device), 1
    for limit in rounds(config.max_new_tokens):
        made = decoded(model, ids[pending], config.num_beams, limit, deadline, memory[pending])
        # transformers returns num_beams ended beams only if no running beam is better than the worst of them. At the
        # limit it also returns running beams, without an end token.
        finished = (made == EOS).any(dim=-1).all(dim=-1)
        if limit == config.max_new_tokens:
            finished[:] = True
        if finished.any():
            longest = made.shape[-1]
            found[pending[finished], :, :longest] = made[finished, : config.num_return]
        pending = pending[~finished]
        if not len(pending):
            break
    return found[:, :, :longest].flatten(0, 1)


def rounds(max_new_tokens: int) -> list[int]:
    """Token limits of beam_search's rounds: FIRST_TOKENS, tripled while at most half of max_new_tokens, then
    max_new_tokens."""
    limits = []
    limit = FIRST_TOKENS
    while 2 * limit <= max_new_tokens:
        limits.append(limit)
        limit *= 3
    return [*limits, max_new_tokens]


def decoded(
    model: Any,
    ids: torch.Tensor,
    num_beams: int,
    max_new_tokens: int,
    deadline: float = math.inf,
    memory: torch.Tensor | None = None,
) -> torch.Tensor:
    """transformers' generate: all beams of each source, best first: [sources, num_beams, tokens]. memory: as of
    beam_search."""

    def in_time(tokens: torch.Tensor, scores: Any, **more: Any) -> torch.Tensor:
        if time.monotonic() > deadline:
            raise TimeoutError("the prediction took too long")
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)

    from transformers.modeling_outputs import BaseModelOutput

    stopping = {} if math.isinf(deadline) else {"stopping_criteria": [in_time]}
    given = {"input_ids": ids} if memory is None else {"encoder_outputs": BaseModelOutput(last_hidden_state=memory)}
    output: torch.Tensor = model.generate(
        **given,
        attention_mask=(ids != PAD).long(),
        num_beams=num_beams,
        num_return_sequences=num_beams,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        **stopping,
    )
    return output.view(len(ids), num_beams, -1)


def predict(
    model_dir: Path,
    task_rows: Rows,
    part: Part,
    config: EvaluateConfig,
    out: Path,
    device: torch.device,
    progress: Progress,
) -> None:
    """Appends predictions of a part's rows to `out` (JSON lines); of tasks with labels also label_scores. Complete
    batches are skipped; an incomplete one is predicted again as a whole, and its last lines count."""
    about = task_rows.about
    done = {line["row"] for line in read_lines(out, predicted_keys(about))}
    todo = [batch for batch in part.batches.values() if not done.issuperset(batch)]
    if not todo:
        return
    tokenizer = Tokenizer.load(model_dir)
    precision = precision_on(device, config.precision)
    model = load_generator(model_dir, device, precision)
    with (
        out.open("a", encoding="utf-8") as file,
        progress.bar(f"predicting {task_rows.task}", sum(map(len, todo))) as bar,
    ):
        for batch in todo:
            ids = padded([part.source(task_rows, row) for row in batch], device)
            memory = encoded(model, ids)
            texts = tokenizer.decode_batch(beam_search(model, ids, config, memory=memory).tolist())
            scores = None
            if has_labels(about):
                scores = label_scores(model, tokenizer, about, ids, config.batch_tokens, memory)
            for i, row in enumerate(batch):
                key, source, target = task_rows.text(row)
                line = {"row": row, "key": key, "source": source, "target": target}
                line["predictions"] = texts[i * config.num_return : (i + 1) * config.num_return]
                if precision != "fp32":
                    line[PRECISION] = precision
                if scores is not None:
                    line[LABEL_SCORES] = [round(score, 6) for score in scores[i].tolist()]
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            bar.advance(len(batch))


def predicted_keys(task: Task) -> jsonl.Needs:
    """Keys of a line of a task's predictions."""
    return {**PREDICTED, LABEL_SCORES: list} if has_labels(task) else PREDICTED


@torch.no_grad()
def token_loss(model_dir: Path, task_rows: Rows, part: Part, device: torch.device) -> dict[int, BatchLoss]:
    """The loss of each batch of a part, by the packed model."""
    if not part.batches:
        return {}
    environment.use_tf32(device, False)
    model = load_pretrained(model_dir, dropout=0.0).eval().to(device)
    found = {}
    for number, batch in part.batches.items():
        sources = [np.array(part.source(task_rows, row)) for row in batch]
        targets = [task_rows.tokens(row)[1] for row in batch]
        model.num_tasks = len(batch)  # the model's sums per "task" are then per row
        loss = model(pack(sources, targets, np.arange(len(batch))).to(device))
        found[number] = BatchLoss(loss.per_task.tolist(), loss.counts.tolist())
    return found


def read_lines(path: Path, needs: jsonl.Needs = jsonl.NOTHING) -> list[dict[str, Any]]:
    """The intact lines of a JSON-lines file; empty if it does not exist. Lines damaged by a kill or a power cut are
    removed, so that they are predicted again; the original file is kept beside it."""
    if not path.is_file():
        return []
    contents = jsonl.read(path, needs)
    if contents.bad or not jsonl.ends_with_newline(path):
        jsonl.repair(path, lambda row: True, needs)
    return contents.rows
