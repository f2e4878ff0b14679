"""Sections that decide what a run learns: its model, data, length, optimizer and learning rate."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bigchem.base.toml import Fraction, Positive, Section


class ModelConfig(Section):
    """Shape, initial weights, dropout and attention backend."""

    preset: str = "t5-small"
    """Model shape: t5-small to t5-11b, t5-v1_1-small to t5-v1_1-xxl, or sweep-0.2m to sweep-16m."""
    init_from: str | None = None
    """Initial weights and shape, instead of `preset`: a Hugging Face folder, or a hub model (google-t5/t5-base), which
    is downloaded once into the hub's cache (HF_HOME). A folder of that name takes precedence. Omitted: random weights
    in the shape of `preset`."""
    dropout: Fraction = 0.1
    """Dropout rate, everywhere that T5 applies dropout."""
    attention: Literal["auto", "triton", "flash_attn", "flash4", "torch", "eager"] = "auto"
    """Attention backend. `auto`: on a GPU bigchem's Triton kernels, with flash-attn for cross-attention if installed;
    on a CPU `torch`. `flash_attn` serves cross-attention alone; `auto` picks the others. `flash4` needs dropout
    0. The choice is printed and recorded in the run folder's model.json."""


class SpansConfig(Section):
    """T5's span corruption, for unlabelled corpora."""

    density: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Fraction of a row's tokens to corrupt."""
    mean_span: Annotated[float, Field(ge=1.0)] = 3.0
    """Mean length of a corrupted span, in tokens."""
    atoms: bool = False
    """In SMILES, align spans with atoms."""


class DataConfig(Section):
    """Shards, mixture and token budgets."""

    path: str = "data"
    """A folder written by `bigchem data build`, or the URL of a copy (s3://, https://, hf://, ...)."""
    check: bool = False
    """Compare every shard's sha256 with the index when it is first opened. Remote shards are always checked."""
    cache: str | None = None
    """Cache for remote shards, on a local disk, shared by all runs on a node. Omitted: $BIGCHEM_CACHE, or a folder in
    your home."""
    cache_gb: Annotated[float, Field(gt=0.0)] = 50.0
    """Maximum size of the cache; the least recently used shards are evicted."""
    mixture: dict[str, float] = Field(default_factory=dict)
    """Weight of each task; tasks not listed are not trained. `text_spans` and `smiles_spans` train on unlabelled
    corpora by span corruption. Omitted: 1 for each task that has training rows."""
    temperature: Annotated[float, Field(ge=0.1)] | None = None
    """Multiply each task's weight by its number of rows ** (1 / temperature): 1 mixes by size, large values approach
    `mixture`. Omitted: `mixture` as is."""
    max_epochs: Annotated[int, Field(ge=0)] = 0
    """Maximum epochs per task. An exhausted task's share goes to the others. 0: no limit."""
    shuffle_window: Annotated[int, Field(ge=0)] = 0
    """Shuffle the shards, and rows only within windows of this many shards: fewer random reads from remote or parallel
    storage. 0: shuffle all rows of a task."""
    global_tokens: Positive = 65536
    """Tokens (source + target, all ranks) per optimizer step, at any world size. Ideally a multiple of world_size *
    micro_tokens. A step takes examples up to 99.5 % of it, to leave room for packing."""
    micro_tokens: Positive = 16384
    """Maximum tokens in a rank's packed micro-batch; sets the memory for activations."""
    max_source_tokens: Positive = 512
    """Maximum source tokens of a training example."""
    max_target_tokens: Positive = 512
    """Maximum target tokens of a training example."""
    over_caps: Literal["drop", "cut"] = "drop"
    """Longer training examples: drop and count them, or cut them. Evaluation drops none."""
    spans: SpansConfig = SpansConfig()

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        for task, weight in self.mixture.items():
            if not weight > 0:
                raise ValueError(f"mixture.{task} = {weight}: weights must be above 0; to exclude the task, omit it")
        longest = self.max_source_tokens + self.max_target_tokens
        if longest > self.micro_tokens:
            raise ValueError(
                f"max_source_tokens + max_target_tokens = {longest} > micro_tokens = {self.micro_tokens}: "
                "a micro-batch must hold the longest example"
            )
        if self.micro_tokens > self.global_tokens:
            raise ValueError(f"micro_tokens = {self.micro_tokens} > global_tokens = {self.global_tokens}")
        return self


class TrainConfig(Section):
    """Length of the run, and the engine."""

    steps: Positive = 1000
    """Optimizer steps of the whole run."""
    tokens: Annotated[float, Field(gt=0)] | None = None
    """Length of the run in real tokens, instead of `steps`, which is then tokens / (0.995 * data.global_tokens): a step
    is filled to 99.5 %."""
    ds_config: str = "zero2"
    """A name in ds_configs/ or the path of a DeepSpeed JSON file."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """T5 overflows in fp16, which therefore needs `force_fp16`."""
    force_fp16: bool = False
    """Allow fp16."""
    log_every: Positive = 10
    """Steps between rows of metrics.jsonl."""
    profile: str | None = None
    """START:STOP. Profile these steps (inclusive, numbered as in the log) on rank 0. The trace and a memory record go
    to the run folder's profile/. Omitted: no profile."""
    wandb: str | None = None
    """Weights & Biases project that also receives metrics, configuration, references to checkpoints, and scores; needs
    the extra `wandb`. Omitted: nothing is sent."""
    mlflow: str | None = None
    """MLflow experiment that also receives them, at the server that MLFLOW_TRACKING_URI names; needs the extra
    `mlflow`. Omitted: nothing is sent."""
    checkpoint_activations: bool = False
    """Recompute each block's activations in the backward pass: less memory, a third more time."""
    tf32: bool = True
    """On GPUs compute products of fp32 matrices in TF32: faster from A100 on, with 10 bits of mantissa instead of 23.
    Loss curves of two layouts then differ by more than fp32's rounding: false to compare them."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the blocks with torch.compile: up to a minute at the start. `auto`: on GPUs, but not at ZeRO stage 3, and
    never on a CPU."""
    ledger: bool = False
    """Record the keys of each rank's examples in each step in `ledger/rank<N>.jsonl`."""
    z_loss: Annotated[float, Field(ge=0.0)] = 0.0
    """Coefficient of log(Z)^2 per target token, which keeps the softmax normaliser Z near 1 (PaLM: 1e-4). The logged
    loss stays plain cross-entropy."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Fraction of each label spread over the vocabulary (often 0.1). The logged loss stays plain cross-entropy."""
    worst_case: bool = True
    """Before the first step, run the largest micro-batch of the longest examples once, without changing the model, so
    that a run that does not fit in memory fails in its first minute."""

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.precision == "fp16" and not self.force_fp16:
            raise ValueError("T5's activations overflow in fp16: use bf16 or fp32, or force_fp16 = true")
        if self.profile is not None and self.tokens is None and not self.profiled:
            raise ValueError(f"profile = {self.profile}: write START:STOP, 1 <= START <= STOP <= steps = {self.steps}")
        return self

    @property
    def profiled(self) -> range:
        """Steps to profile, counted from 1; empty: none."""
        found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", self.profile or "0:0")
        start, stop = (0, -1) if found is None else map(int, found.groups())
        return range(start, stop + 1) if stop <= self.steps else range(0)


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """The optimizer, and gradient clipping."""

    kind: Literal["adamw", "adamw_rms", "adafactor"] = "adamw"
    """`adamw_rms`: AdamW with a per-parameter rate of lr * max(1e-3, RMS of the parameter), for T5 from scratch (lr
    near 2e-2). `adafactor`: the same scaling, a factored second moment, no first moment, lr at most 1 / sqrt(step);
    zero0 only."""
    lr: Annotated[float, Field(gt=0)] = 6e-4
    """Peak learning rate (6e-4: Text+Chem T5)."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay rates of the moment estimates (adamw, adamw_rms)."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator (adamw, adamw_rms)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay; norms, biases and embeddings are exempt."""
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    """Maximum gradient norm; 0: no clipping."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay rate of an exponential moving average of the weights (often 0.999), stored with the moments: 4 bytes per
    parameter. 0: none."""


class ScheduleConfig(Section):
    """Learning rate over steps: linear warm-up, then `kind`."""

    kind: Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"] = "cosine"
    """Shape after the warm-up. `wsd` (warm-up, stable, decay): the peak, then a linear decay over the last
    decay_steps."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up."""
    final: Fraction = 0.1
    """Fraction of the peak at the last step (linear, cosine, wsd)."""
    decay_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of decay at the end of the run (wsd)."""

    @model_validator(mode="after")
    def _check(self) -> ScheduleConfig:
        if (self.kind == "wsd") != (self.decay_steps > 0):
            raise ValueError(
                f"decay_steps = {self.decay_steps} with kind = '{self.kind}': they belong together with wsd"
            )
        return self
