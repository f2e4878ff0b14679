"""The contestants of the training-step benchmark: bigchem's packed T5 and transformers' padded T5."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from bigchem.bench.model.mix import Rows
from bigchem.data.packing import pack
from bigchem.model.attention import Setting as AttentionSetting
from bigchem.model.attention import choose_backends
from bigchem.model.feed import feed
from bigchem.model.packed_batch import PackedBatch
from bigchem.model.presets import Shape, to_hf_config
from bigchem.model.t5 import PackedT5

Examples = list[tuple[Tensor, Tensor]]
"""Source and target ids of each row, int64 on the CPU."""


def examples(rows: Rows, vocab_size: int) -> Examples:
    """Random tokens of these lengths; speed does not depend on the tokens."""
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randint(2, vocab_size, (int(n),), generator=generator) for n in rows.ravel()]
    return list(zip(draw[::2], draw[1::2], strict=True))


@dataclass(frozen=True)
class Setting:
    """The setting of one comparison."""

    preset: str
    shape: Shape
    dropout: float
    device: torch.device
    dtype: torch.dtype

    @property
    def name(self) -> str:
        return f"{self.preset}, {self.shape.vocab_size} rows of vocabulary, dropout {self.dropout:g}"


class Contestant(Protocol):
    """A model, how it batches examples, and its mean loss of a batch."""

    @property
    def model(self) -> nn.Module: ...

    def batch(self, rows: Examples) -> Any: ...

    def loss(self, batch: Any) -> Tensor: ...


class Ours:
    """PackedT5. backend: a name, or "auto"."""

    def __init__(self, setting: Setting, weights: Mapping[str, Tensor], backend: str, *, compiled: bool) -> None:
        needed = AttentionSetting(setting.device, setting.dtype, setting.shape.d_kv, setting.dropout)
        self.backends = choose_backends(backend, needed)
        with setting.device:
            self.model = PackedT5(setting.shape, setting.dropout, self.backends)
        self.model.load_state_dict({name: weights[name] for name in self.model.state_dict()})
        self.model.to(setting.dtype)
        self.device, self.send = setting.device, feed(setting.device)
        if compiled:
            self.model.compile_blocks()

    def batch(self, rows: Examples) -> PackedBatch:
        sources, targets = ([ids.numpy() for ids in side] for side in zip(*rows, strict=True))
        batch = pack(sources, targets, np.zeros(len(rows), np.int64))
        return self.send(self.model.plan(batch, self.device))

    def loss(self, batch: PackedBatch) -> Tensor:
        total: Tensor = self.model(batch).total
        return total / len(batch.target_ids)


class Theirs:
    """T5ForConditionalGeneration. fixed: pad rows to this many tokens; None: to the longest of the batch."""

    def __init__(
        self, setting: Setting, weights: Mapping[str, Tensor], attention: str, *, compiled: bool, fixed: int | None
    ) -> None:
        self.model = reference(setting, attention)
        self.model.load_state_dict(weights)
        self.model.to(setting.dtype)
        self.device, self.fixed = setting.device, fixed
        if compiled:  # block by block like ours: compiling everything at once takes several times as long
            # Past the limit of 8, dynamo would silently continue uncompiled.
            torch._dynamo.config.recompile_limit = 64
            torch._dynamo.config.fail_on_recompile_limit_hit = True
            for stack in ("encoder", "decoder"):
                for block in self.model.get_submodule(stack).get_submodule("block").children():
                    block.compile(dynamic=True)

    def batch(self, rows: Examples) -> dict[str, Tensor]:
        sources, targets = zip(*rows, strict=True)
        ids, mask = self._padded(sources, 0), self._padded([torch.ones_like(source) for source in sources], 0)
        batch = {"input_ids": ids, "attention_mask": mask, "labels": self._padded(targets, -100)}
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def _padded(self, parts: Sequence[Tensor], value: int) -> Tensor:
        padded = pad_sequence(list(parts), batch_first=True, padding_value=value)
        missing = 0 if self.fixed is None else self.fixed - padded.shape[1]
        return nn.functional.pad(padded, (0, missing), value=value)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        loss: Tensor = self.model(**batch).loss
        return loss


def reference(setting: Setting, attention: str) -> nn.Module:
    """transformers' model of this shape: fresh fp32 weights, training mode, no cache."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = to_hf_config(setting.shape, setting.dropout)
    del config["model_type"]
    with setting.device:
        model = T5ForConditionalGeneration(T5Config(**config, use_cache=False, attn_implementation=attention))
    trained: nn.Module = model.train()
    return trained
