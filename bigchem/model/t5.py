"""T5 over packed sequences, without padding except inside attention backends that need it.

Module and parameter names match transformers' T5ForConditionalGeneration, so loading and exporting are plain copies.
Hidden states are [tokens, d_model]; layouts say which tokens form a sequence.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
import torch.fx.experimental._config
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bigchem.model import dropout, functional
from bigchem.model.attention import KINDS, Setting, attention, keep_out_of_graphs, plan, prepare
from bigchem.model.functional import Drop, Objective
from bigchem.model.layout import Layout
from bigchem.model.linear import linear
from bigchem.model.packed_batch import PackedBatch
from bigchem.model.presets import Shape
from bigchem.model.relative_bias import relative_bias

START_ID = 0
"""The decoder's first input token: T5 starts with the padding token."""


class Loss(NamedTuple):
    """Sums, not means, over a batch's target tokens: the caller divides by the whole step's tokens.

    total: fp32 scalar with gradient, in training the model's objective; per_task: fp32 [num_tasks], detached, always
    the plain cross-entropy; counts: int64 [num_tasks], tokens learned.
    """

    total: Tensor
    per_task: Tensor
    counts: Tensor


Stream = tuple[Tensor | None, Tensor | None]
"""The residual stream (x, update), which stands for x + dropout(update), or for one of them where the other is None: a
sublayer leaves its addition to the next norm, whose kernel makes it."""


class RMSNorm(nn.Module):
    """T5's layer norm, without mean or bias, in fp32; and before it the addition of the last sublayer's output."""

    def __init__(self, dim: int, eps: float, dropout: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps, self.dropout = eps, dropout

    def forward(
        self, x: Tensor | None, update: Tensor | None, hashes: Tensor, seed: int, normed_seed: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """`functional.add_norm`."""
        return functional.add_norm(x, update, self.weight, self.eps, drop(self, hashes), seed, normed_seed)


def drop(module: nn.Module, hashes: Tensor) -> Drop:
    """The dropout of tokens in a module that has a share `dropout`, which drops in training only."""
    return Drop(hashes, cast(float, module.dropout) if module.training else 0.0)


class Linear(nn.Linear):
    """No bias; weights from N(0, std^2), as T5 does (transformers' `_init_weights` with factor 1).

    They are drawn while the module is built, before DeepSpeed's zero.Init partitions them.
    """

    def __init__(self, dim_in: int, dim_out: int, std: float) -> None:
        self.std = std
        super().__init__(dim_in, dim_out, bias=False)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class BiasTable(nn.Embedding):
    """A stack's relative-position bias [buckets, heads], initialised as T5 does."""

    def __init__(self, shape: Shape) -> None:
        self.std = shape.d_model**-0.5
        super().__init__(shape.relative_attention_num_buckets, shape.num_heads)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.std)


class Attention(nn.Module):
    """Projections around one kind of attention. A stack's first self-attention has the stack's bias table."""

    def __init__(self, shape: Shape, dropout: float, kind: str, backend: str, has_bias: bool) -> None:
        super().__init__()
        self.d_kv, self.dropout, self.causal, self.backend = shape.d_kv, dropout, kind == "decoder_self", backend
        d, inner = shape.d_model, shape.inner_dim
        self.q = Linear(d, inner, std=(d * shape.d_kv) ** -0.5)  # includes the 1 / sqrt(d_kv) that the scores lack
        self.k = Linear(d, inner, std=d**-0.5)
        self.v = Linear(d, inner, std=d**-0.5)
        self.o = Linear(inner, d, std=inner**-0.5)
        if has_bias:
            self.relative_attention_bias = BiasTable(shape)

    def forward(
        self, x: Tensor, layout: Layout, seed: int, memory: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Queries from x, keys and values from memory (None: from x)."""
        source = x if memory is None else memory
        q, k, v = (y.unflatten(-1, (-1, self.d_kv)) for y in (self.q(x), self.k(source), self.v(source)))
        dropout_p = self.dropout if self.training else 0.0
        out = attention(q, k, v, bias, layout, causal=self.causal, dropout_p=dropout_p, seed=seed, backend=self.backend)
        projected: Tensor = self.o(out.flatten(1))
        return projected


class FeedForward(nn.Module):
    """ReLU (v1.0), gated GELU (v1.1: the tanh approximation) or gated SiLU (UL2)."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        d, d_ff = shape.d_model, shape.d_ff
        self.gated, self.activation, self.dropout = shape.gated, shape.activation, dropout
        if shape.gated:
            self.wi_0 = Linear(d, d_ff, std=d**-0.5)
            self.wi_1 = Linear(d, d_ff, std=d**-0.5)
        else:
            self.wi = Linear(d, d_ff, std=d**-0.5)
        self.wo = Linear(d_ff, d, std=d_ff**-0.5)

    def forward(self, x: Tensor, layout: Layout, seed: int) -> Tensor:
        a, b = (self.wi_0(x), self.wi_1(x)) if self.gated else (self.wi(x), None)
        projected: Tensor = self.wo(functional.activate(a, b, self.activation, drop(self, layout.hashes), seed))
        return projected


class Sublayer(nn.Module):
    """x + dropout(inner(norm(x))), as a stream; `name` is what transformers calls the inner module."""

    def __init__(self, name: str, inner: nn.Module, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, inner)
        self.layer_norm = RMSNorm(shape.d_model, shape.layer_norm_epsilon, dropout)

    def forward(
        self,
        x: Tensor | None,
        update: Tensor | None,
        layout: Layout,
        seeds: Sequence[int],
        *args: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """seeds: of the update's dropout and of that inside. args: for the inner module's attention."""
        inner = cast(nn.Module, getattr(self, self.name))
        x, normed = self.layer_norm(x, update, layout.hashes, seeds[0])
        return x, inner(normed, layout, seeds[1], *args)


class Block(nn.Module):
    """Self-attention, in the decoder cross-attention, feed-forward."""

    def __init__(self, shape: Shape, dropout: float, backends: Mapping[str, str], decoder: bool, first: bool) -> None:
        super().__init__()
        kind = "decoder_self" if decoder else "encoder_self"
        inner: dict[str, nn.Module] = {"SelfAttention": Attention(shape, dropout, kind, backends[kind], first)}
        if decoder:
            inner["EncDecAttention"] = Attention(shape, dropout, "cross", backends["cross"], has_bias=False)
        inner["DenseReluDense"] = FeedForward(shape, dropout)
        self.layer = nn.ModuleList(Sublayer(name, module, shape, dropout) for name, module in inner.items())
        self.dropout = dropout

    def forward(
        self,
        x: Tensor | None,
        update: Tensor | None,
        memory: Tensor | None,
        bias: Tensor,
        layouts: Sequence[Layout],
        seeds: Sequence[int],
    ) -> tuple[Tensor, Tensor]:
        """layouts: of self-attention and, in the decoder, of cross-attention to the memory. seeds: two a sublayer, and
        that of the next sublayer's first dropout."""
        x, update = self.layer[0](x, update, layouts[0], seeds[:2], None, bias)
        if memory is not None:
            x, update = self.layer[1](x, update, layouts[1], seeds[2:4], memory)
        stream: tuple[Tensor, Tensor] = self.layer[-1](x, update, layouts[0], seeds[-3:-1])
        return stream


def _open(block: nn.Module, *args: Any) -> Stream:
    """A block that leaves its last addition to the next."""
    stream: Stream = block(*args)
    return stream


def _closed(
    block: nn.Module,
    x: Tensor | None,
    update: Tensor | None,
    memory: Tensor | None,
    bias: Tensor,
    layouts: Sequence[Layout],
    seeds: Sequence[int],
) -> Stream:
    """A block between complete streams: a checkpoint keeps one tensor, and all of a stack's blocks compile as one."""
    x, update = block(x, update, memory, bias, layouts, seeds)
    return functional.add(x, update, drop(block, layouts[0].hashes), seeds[-1]), None


class Stack(nn.Module):
    """Encoder or decoder, from embedded tokens to normed hidden states."""

    checkpoint_activations = False
    compiled_block: Callable[..., Stream] | None = None
    """Calls a block in training, if compile_blocks was called."""

    def __init__(self, shape: Shape, dropout: float, backends: Mapping[str, str], decoder: bool) -> None:
        super().__init__()
        num_layers = shape.num_decoder_layers if decoder else shape.num_layers
        self.block = nn.ModuleList(Block(shape, dropout, backends, decoder, i == 0) for i in range(num_layers))
        self.final_layer_norm = RMSNorm(shape.d_model, shape.layer_norm_epsilon, dropout)
        self.dropout = dropout
        self.bidirectional = not decoder
        self.max_distance = shape.relative_attention_max_distance
        self.seeds_per_block = 6 if decoder else 4
        self.num_seeds = 2 + num_layers * self.seeds_per_block
        """Places that drop: the embedding, two in each sublayer, the final norm."""

    def forward(self, x: Tensor, memory: Tensor | None, layouts: Sequence[Layout], seeds: Sequence[int]) -> Tensor:
        """seeds [num_seeds]: of the stack's places, in order."""
        table = self.get_submodule("block.0.layer.0.SelfAttention.relative_attention_bias")
        bias = relative_bias(cast(nn.Embedding, table), self.bidirectional, self.max_distance)
        hashes, checkpointed = layouts[0].hashes, self.training and self.checkpoint_activations
        run: Callable[..., Stream] = _closed if checkpointed else _open
        # Sizes of one, as on a rank without work, would trigger another compilation.
        if self.training and self.compiled_block and min(layouts[-1].max_q, layouts[-1].max_k) > 1:
            run = self.compiled_block
        stream: Stream = None, x
        if run is not _open:
            stream = functional.add(None, x, drop(self, hashes), seeds[0]), None
        for i, block in enumerate(self.block):
            first = i * self.seeds_per_block
            args = (block, *stream, memory, bias, layouts, seeds[first : first + self.seeds_per_block + 1])
            stream = checkpoint(run, *args, use_reentrant=False) if checkpointed else run(*args)
        normed: Tensor = self.final_layer_norm(*stream, hashes, *seeds[-2:])[1]
        return normed


class OutputProjection(Linear):
    """The untied lm_head. Its forward computes the loss, so that ZeRO-3 gathers the weight around its only use."""

    def forward(  # type: ignore[override]
        self, hidden: Tensor, labels: Tensor, objective: Objective
    ) -> tuple[Tensor, Tensor]:
        return functional.linear_cross_entropy(hidden, self.weight, labels, objective)


class PackedT5(nn.Module):
    """T5ForConditionalGeneration over packed batches.

    backends: kind of attention -> backend, from `choose_backends`. checkpoint_activations: in training, keep only each
    block's input and recompute the block in the backward pass. Fresh weights have T5's own initialisation.
    """

    compiled = False
    """Whether compile_blocks was called."""
    objective = functional.PLAIN
    """What training minimises. Evaluation, Loss.per_task and logs always use the plain cross-entropy."""

    def __init__(
        self,
        shape: Shape,
        dropout: float = 0.1,
        backends: Mapping[str, str] | None = None,
        *,
        checkpoint_activations: bool = False,
        num_tasks: int = 1,
    ) -> None:
        super().__init__()
        backends = backends or dict.fromkeys(KINDS, "torch")
        self.shape, self.num_tasks, self.backends = shape, num_tasks, dict(backends)
        self.shared = nn.Embedding(shape.vocab_size, shape.d_model)  # torch's default, N(0, 1), is T5's
        self.encoder = Stack(shape, dropout, backends, decoder=False)
        self.decoder = Stack(shape, dropout, backends, decoder=True)
        self.encoder.checkpoint_activations = self.decoder.checkpoint_activations = checkpoint_activations
        if not shape.tied:
            self.lm_head = OutputProjection(shape.d_model, shape.vocab_size, std=1.0)

    def compile_blocks(self) -> None:
        """Compiles blocks for training: one graph for the encoder's, one for the decoder's, for any number of tokens
        and sequences (docs/decisions.md says why sizes are not static). Changes a torch setting process-wide."""
        keep_out_of_graphs()
        # Otherwise sizes that happen to be equal in the first batch would be assumed equal from then on.
        torch.fx.experimental._config.use_duck_shape = False
        self.encoder.compiled_block = self.decoder.compiled_block = torch.compile(_closed, dynamic=True)
        self.compiled = True

    @property
    def external_parameters(self) -> list[nn.Parameter]:
        """Parameters that this module's forward uses without calling their module: under ZeRO-3, pass each to
        `deepspeed.zero.register_external_parameter(model, p)`."""
        return [cast(nn.Parameter, self.shared.weight)] if self.shape.tied else []

    def plan(self, batch: PackedBatch, device: torch.device) -> PackedBatch:
        """The batch with what attention's backends on a device derive from its lengths: made on the host, to be copied
        to the device with the batch. The forward pass of a batch without it plans and copies by itself, and waits."""
        setting = self._setting(device)
        layouts = _layouts(batch).items()
        work = {kind: plan(self.backends[kind], x.lengths_q, x.lengths_k, setting) for kind, x in layouts}
        return replace(batch, work=work)

    def forward(self, batch: PackedBatch, seed: int = 0) -> Loss:
        """The cross-entropy of the targets, summed. seed: of dropout in training, one for a whole step."""
        hidden = self._hidden(batch, seed)
        objective = self.objective if self.training else functional.PLAIN
        if self.shape.tied:
            total, losses = functional.linear_cross_entropy(hidden, self.shared.weight, batch.target_ids, objective)
        else:
            total, losses = self.lm_head(hidden, batch.target_ids, objective)
        return Loss(total, *self._by_task(batch, losses))

    def logits(self, batch: PackedBatch) -> Tensor:
        """Scores of every token at every target position, from the labels before it: fp32 [Tt, vocab_size].

        Materialises all of them, which training never does. Under ZeRO-3, gather the weights first.
        """
        head = self.shared if self.shape.tied else self.lm_head
        return (self._hidden(batch) @ head.weight.t()).float()

    def _hidden(self, batch: PackedBatch, seed: int = 0) -> Tensor:
        """The output projection's input [Tt, d_model], scaled if the embeddings are tied."""
        setting = self._setting(batch.source_ids.device)
        source, target, cross = (
            prepare(layout, self.backends[kind], setting, None if batch.work is None else batch.work[kind])
            for kind, layout in _layouts(batch).items()
        )
        seeds = dropout.place_seeds(seed, self.encoder.num_seeds + self.decoder.num_seeds)
        memory = self.encoder(self.shared(batch.source_ids), None, [source], seeds[: self.encoder.num_seeds])
        inputs = shift_right(batch.target_ids, batch.target_cu_seqlens)
        hidden: Tensor = self.decoder(self.shared(inputs), memory, [target, cross], seeds[self.encoder.num_seeds :])
        return hidden * self.shape.d_model**-0.5 if self.shape.tied else hidden

    def _setting(self, device: torch.device) -> Setting:
        # Not self.shared.weight: ZeRO-3 would gather it, and in the loader's thread at another time on each rank.
        return Setting(device, next(self.shared.parameters()).dtype, self.shape.d_kv)

    def _by_task(self, batch: PackedBatch, losses: Tensor) -> tuple[Tensor, Tensor]:
        lengths = batch.target_cu_seqlens.diff().long()
        task = batch.task_ids.repeat_interleave(lengths, output_size=len(losses))
        learned = (batch.target_ids != functional.IGNORED).long()
        return (
            losses.new_zeros(self.num_tasks).index_add_(0, task, losses),
            learned.new_zeros(self.num_tasks).index_add_(0, task, learned),
        )


def _layouts(batch: PackedBatch) -> dict[str, Layout]:
    """The layout of each kind of attention, in the order of KINDS."""
    cu_source, cu_target = batch.source_cu_seqlens, batch.target_cu_seqlens
    source, target = batch.source_lens, batch.target_lens
    return {
        "encoder_self": Layout(cu_source, cu_source, source, source, batch.source_hashes),
        "decoder_self": Layout(cu_target, cu_target, target, target, batch.target_hashes),
        "cross": Layout(cu_target, cu_source, target, source, batch.target_hashes),
    }


def shift_right(labels: Tensor, cu_seqlens: Tensor) -> Tensor:
    """The decoder's inputs: START_ID, then the labels, inside each sequence; ignored labels become 0."""
    inputs = F.pad(labels, (1, 0), value=START_ID)
    inputs[cu_seqlens[:-1].long()] = START_ID
    return inputs[:-1].masked_fill(inputs[:-1] == functional.IGNORED, 0)
