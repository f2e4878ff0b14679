"""The run configuration: every field of a run's TOML, typed and documented."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bigchem.base.errors import nearest
from bigchem.base.toml import Fraction, Positive, Section

HEADROOM = 0.005
"""Share of global_tokens that a step leaves free, since examples do not pack into equal micro-batches without gaps.
Otherwise a step of exactly world_size * micro_tokens would need one more, nearly empty, micro-batch on every rank."""


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


class CheckpointConfig(Section):
    """When checkpoints are saved, and which are kept."""

    every: Positive = 500
    """Steps between checkpoints; the last step always has one."""
    keep: Positive = 2
    """How many of the newest checkpoints are kept."""
    keep_every: Annotated[int, Field(ge=0)] = 0
    """Keep checkpoints at multiples of this step count permanently; 0: none."""
    copy_to: str | None = None
    """Copy each checkpoint in the background to this folder or URL (s3://, ...), under the run's name and with the same
    retention. A run folder without checkpoints resumes from the newest copy. Omitted: no copies."""
    async_save: bool | Literal["auto"] = "auto"
    """Copy each checkpoint to host memory, and write it while training goes on. The last one, and those before a stop,
    are written at once. `auto`: on GPUs. In any case only if every node's memory has room for the copies."""
    direct_io: bool = True
    """Bypass the page cache when writing (O_DIRECT), where the file system supports it."""


class ValidationConfig(Section):
    """Loss on fixed rows of another split during training; decides the best checkpoint and early stopping."""

    every: Annotated[int, Field(ge=0)] = 0
    """Steps between validations; the last step is always validated. 0: none."""
    split: Literal["valid", "test"] = "valid"
    """Split to validate on."""
    max_rows: Positive = 256
    """Maximum rows per task, selected by the data alone. Rows over the caps of [data] are dropped or cut, as in
    training."""
    metric: str = "loss"
    """Decides the best checkpoint and early stopping; lower is better. `loss`: the mean over tasks of the loss per
    target token. `loss/forward`: one task's."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Finish early after this many validations in a row without a new best. 0: never."""
    keep_best: bool = True
    """Save a checkpoint at every new best, keep it regardless of [checkpoint], and export and evaluate it instead of
    the last one."""
    samples: Annotated[int, Field(ge=0)] = 2
    """Greedy predictions per task at every validation, at most 64 tokens long, in samples.jsonl and TensorBoard."""

    @model_validator(mode="after")
    def _check(self) -> ValidationConfig:
        if self.patience and not self.every:
            raise ValueError(f"patience = {self.patience}, but every = 0: nothing is validated")
        return self


class HealthConfig(Section):
    """Thresholds for bad steps, stragglers and hangs; docs/training.md has the responses."""

    window: Annotated[int, Field(ge=8)] = 64
    """Compare each loss with those of this many recent applied steps. Spikes are not detected until the window is
    full."""
    spike_zscore: Annotated[float, Field(ge=0.0)] = 10.0
    """Skip a step whose loss is more than this many deviations above the window's median; a deviation is 1.48 times the
    median absolute deviation. 0: never."""
    max_bad_steps: Positive = 5
    """After this many skipped steps in a row, roll back to the last checkpoint, once; if that does not help, stop."""
    hang_s: Annotated[float, Field(ge=0.0)] = 1800.0
    """End the attempt, naming the hung rank, after this many seconds without progress. The limit is four times as long
    until the first step is done and while saving, validating or writing a profile; eight times while downloading
    weights or resuming. 0: never."""
    rendezvous_s: Annotated[float, Field(gt=0.0)] = 60.0
    """Seconds for all ranks to reach rank 0. Otherwise absent ranks are named, and the job exits to be restarted. Raise
    it if Python starts slowly from a network file system."""
    slow_rank: Annotated[float, Field(gt=1.0)] = 1.5
    """Warn when a rank spends more than this multiple of the others' median on forward passes and waiting for data."""
    starved: Fraction = 0.3
    """Warn when more than this fraction of the time goes to waiting for data."""


class EvaluateConfig(Section):
    """The evaluation at the end of a run, and the defaults of `bigchem evaluate`."""

    at_end: bool = True
    """Consolidate and evaluate after the last step."""
    split: Literal["valid", "test"] = "test"
    """Split to predict."""
    tasks: tuple[str, ...] = ()
    """Tasks to predict, of those that the run is trained on; empty: all."""
    max_rows: Annotated[int, Field(ge=0)] = 0
    """Maximum rows per task; 0: all."""
    num_beams: Annotated[int, Field(ge=1, le=100)] = 1
    """Beam width; 1: greedy."""
    num_return: Positive = 1
    """Predictions kept per example (k-best), at most num_beams."""
    max_new_tokens: Positive = 512
    """Maximum tokens of a prediction."""
    batch_tokens: Positive = 8192
    """Padded source tokens per prediction batch."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Precision of predictions. `auto`: bf16 on GPUs, fp32 on a CPU. `tf32`: fp32 with products in TF32, on GPUs alone.
    results.json has the one that was used. The loss is always fp32's."""
    bootstrap: Annotated[int, Field(ge=0)] = 200
    """Bootstrap resamples for the 95 % intervals; 0: no intervals."""
    similarity: bool = False
    """Also compute MACCS, RDK and Morgan similarities for reactions; they take longer than all other metrics of these
    tasks together."""

    @model_validator(mode="after")
    def _check(self) -> EvaluateConfig:
        if self.num_return > self.num_beams:
            raise ValueError(f"num_return = {self.num_return} > num_beams = {self.num_beams}")
        return self


class NotifyConfig(Section):
    """Who is notified when a run ends, fails or hangs; docs/training.md has the messages."""

    on: tuple[Literal["end", "failure", "stall"], ...] = ("end", "failure", "stall")
    """Events to report. `end`: the run finished or was stopped. `failure`: it failed and will not be restarted.
    `stall`: it hangs."""
    command: tuple[str, ...] = ()
    """A program and its arguments, run without a shell. The message is JSON on stdin; BIGCHEM_RUN, BIGCHEM_EVENT,
    BIGCHEM_STATE and BIGCHEM_REASON are in the environment. Empty: none."""
    webhook_env: str | None = None
    """Environment variable that holds the webhook's URL, which is a secret and so not in the configuration. It receives
    `{"text": ...}`, the format of Slack and Mattermost. Omitted: no webhook."""
    stall_s: Annotated[float, Field(ge=0.0)] = 0.0
    """Also notify after this many seconds without a finished step; the run continues. 0: only when `health.hang_s` ends
    the attempt."""

    @model_validator(mode="after")
    def _check(self) -> NotifyConfig:
        name = self.webhook_env
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("webhook_env is the name of a variable, not the URL, which does not belong in run files")
        return self


Alone = Literal["examples", "tokens", "compute"]
"""How a run of one task, or of some, is matched with the run of all tasks."""


class SweepPoint(Section):
    """A run's place in the design of a sweep. Written by `bigchem sweep`."""

    name: str | None = None
    """Name of the sweep; omitted: the run belongs to none."""
    axes: dict[str, Any] = Field(default_factory=dict)
    """The run's value of each further axis, by dotted field."""
    per_size: tuple[str, ...] = ()
    """Dotted fields that the sweep sets for the run's size."""
    selected: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Dotted fields that the sweep chose for the run's size and mixture: validation loss by tried value."""
    alone: Alone | None = None
    """What the run has as many of as the run of all tasks; omitted: the sweep did not match them."""


class RunConfig(Section):
    """A run's configuration."""

    replaces = MappingProxyType({"train.steps": "train.tokens", "train.tokens": "train.steps"})

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    """Name of the run and its folder: letters, digits, `.`, `_` and `-`, starting with a letter or digit."""
    runs: str = "runs"
    """Folder that holds the run folders."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed for weights, dropout and example order."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    validation: ValidationConfig = ValidationConfig()
    health: HealthConfig = HealthConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    notify: NotifyConfig = NotifyConfig()
    sweep: SweepPoint = SweepPoint()

    @model_validator(mode="after")
    def _derive_steps(self) -> RunConfig:
        """train.steps from train.tokens. Both may be given, as in a run's folder, if they agree."""
        train = self.train
        if train.tokens is None:
            return self
        steps = steps_for(train.tokens, self.data.global_tokens)
        if "steps" in train.model_fields_set and train.steps != steps:
            raise ValueError(
                f"train.steps = {train.steps}, but train.tokens = {train.tokens:g} are {steps} steps: give one of them"
            )
        found = train.model_copy(update={"steps": steps})
        if train.profile is not None and not found.profiled:
            raise ValueError(f"train.profile = {train.profile} ends after the {steps} steps of train.tokens")
        return self.model_copy(update={"train": found})

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        if self.schedule.warmup_steps >= self.train.steps:
            raise ValueError(
                f"schedule.warmup_steps = {self.schedule.warmup_steps} >= train.steps = {self.train.steps}: "
                "the run would end inside its warm-up"
            )
        metric, known = self.validation.metric, ["loss", *(f"loss/{task}" for task in self.data.mixture)]
        if metric not in known and (self.data.mixture or not metric.startswith("loss/")):
            raise ValueError(f"unknown validation.metric '{metric}'; {nearest(metric, known)}")
        if self.schedule.warmup_steps + self.schedule.decay_steps > self.train.steps:
            raise ValueError(
                f"schedule.warmup_steps + schedule.decay_steps = "
                f"{self.schedule.warmup_steps + self.schedule.decay_steps} > train.steps = {self.train.steps}"
            )
        return self

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return Path(self.runs) / self.name


def steps_for(tokens: float, global_tokens: int) -> int:
    """Optimizer steps that train on this many real tokens."""
    return math.ceil(tokens / (global_tokens * (1 - HEADROOM)))


def tokens_of(config: RunConfig) -> float:
    """Real tokens of a whole run, as its full steps hold them: a step ends before the example that would not fit."""
    return config.train.steps * config.data.global_tokens * (1 - HEADROOM)
