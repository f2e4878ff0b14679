"""The run configuration: every field of a run's TOML, typed and documented."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from bigchem.base.errors import nearest
from bigchem.base.toml import Fraction, Positive, Section
from bigchem.tasks import TASK_NAMES, TRAINABLE_NAMES


class ModelConfig(Section):
    """The model: a preset's shape, with single fields changed where given."""

    preset: str = "t5-small"
    """A name from bigchem/model/presets.py."""
    init_from: str | None = None
    """Takes the weights (and the shape) of a Hugging Face folder, or of a model at its hub (google-t5/t5-base), fetched
    once into its cache (HF_HOME); a folder of that name comes first. None: fresh weights."""
    dropout: Fraction = 0.1
    """Everywhere T5 has it."""
    attention: Literal["auto", "triton", "flash_attn", "torch", "eager"] = "auto"
    """`auto` chooses per kind of attention: on a GPU our Triton kernels, for cross-attention flash-attn where it is
    installed; on a CPU `torch`. The choice is printed, and written to the run folder's model.json."""


class SpansConfig(Section):
    """T5's span corruption of unlabelled corpora."""

    density: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """Share of a row's tokens that are noise."""
    mean_span: Annotated[float, Field(ge=1.0)] = 3.0
    """Mean number of tokens in a span of noise."""
    atoms: bool = False
    """In SMILES, spans begin and end where atoms do."""


class DataConfig(Section):
    """Which shards, which mixture, how many tokens."""

    path: str = "data"
    """A folder written by `bigchem data build`, or the URL of a copy of one (s3://, https://, hf://, ...)."""
    check: bool = False
    """Compare every shard's sha256 with the index when it is first opened. Remote shards always are."""
    cache: str | None = None
    """Folder for remote shards, on a local disk, shared by all runs of a node; None: $BIGCHEM_CACHE, or one in the
    home folder."""
    cache_gb: Annotated[float, Field(gt=0.0)] = 50.0
    """Most that the cache holds; the shards that were used last stay."""
    mixture: dict[str, float] = Field(default_factory=lambda: dict.fromkeys(TASK_NAMES, 1.0))
    """Weight of each task; a task left out is not trained. `text_spans` and `smiles_spans` are unlabelled corpora."""
    temperature: Annotated[float, Field(ge=0.1)] | None = None
    """Weights are multiplied by rows ** (1 / temperature): 1 mixes by size, large values as `mixture` says. None: as
    `mixture` says."""
    max_epochs: Annotated[int, Field(ge=0)] = 0
    """Most times that a row comes in the run; a task that is used up leaves its part to the others. 0: no limit."""
    shuffle_window: Annotated[int, Field(ge=0)] = 0
    """Rows are shuffled within windows of so many shards, and shards among each other, so that reads stay local: for
    remote and parallel storage. 0: all rows of a task among each other."""
    global_tokens: Positive = 65536
    """Real tokens (source + target, all ranks) of one optimizer step. World size and accumulation never change it. Best
    a multiple of world_size * micro_tokens: a step fills 99.5 % of it, so that its micro-batches can be packed."""
    micro_tokens: Positive = 16384
    """Most tokens of one packed micro-batch of one rank: what must fit into memory."""
    max_source_tokens: Positive = 512
    """Longest source that is trained on."""
    max_target_tokens: Positive = 512
    """Longest target that is trained on."""
    over_caps: Literal["drop", "cut"] = "drop"
    """What becomes of longer training examples: left out and counted, or cut. Evaluation never drops any."""
    spans: SpansConfig = SpansConfig()

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        for task, weight in self.mixture.items():
            if task not in TRAINABLE_NAMES:
                raise ValueError(f"unknown task '{task}' in mixture; {nearest(task, list(TRAINABLE_NAMES))}")
            if not weight > 0:
                raise ValueError(f"mixture.{task} = {weight}: weights are above 0; leave the task out instead")
        if not self.mixture:
            raise ValueError("mixture names no task")
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
    """The length of the run and the engine under it."""

    steps: Positive = 1000
    """Optimizer steps of the whole run."""
    ds_config: str = "zero2"
    """A name in ds_configs/ or a path to a DeepSpeed JSON file."""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """fp16 overflows in T5 and needs `force_fp16`."""
    force_fp16: bool = False
    """Run T5 in fp16 all the same."""
    log_every: Positive = 10
    """Steps between two rows of metrics.jsonl."""
    profile: str | None = None
    """START:STOP: profiles these steps, both included, counted as in the log, on rank 0: a trace and a record of memory
    in the run folder's profile/. None: no profile."""
    wandb: str | None = None
    """Project at Weights & Biases that gets the metrics as well; needs `pip install wandb`. None: nothing is sent."""
    checkpoint_activations: bool = False
    """Compute each block's activations again in the backward pass: less memory, a third more time."""
    compile: bool = False
    """Compile the blocks with torch.compile: up to a minute at the start. On a CPU it does not pay."""
    ledger: bool = False
    """Record in ledger/rank<N>.jsonl the keys of the examples that each rank computes in each step."""
    z_loss: Annotated[float, Field(ge=0.0)] = 0.0
    """Coefficient of log(Z)^2 per target token, which keeps the softmax's normaliser Z near 1 (PaLM: 1e-4). What is
    logged stays the plain cross-entropy."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of each label that is spread over the vocabulary (often 0.1). What is logged stays the plain
    cross-entropy."""
    worst_case: bool = True
    """Before the first step, compute the largest micro-batch of the longest examples once and drop its gradients, so
    that running out of memory shows in the first minute."""

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.precision == "fp16" and not self.force_fp16:
            raise ValueError("T5's activations overflow in fp16: use bf16 or fp32, or force_fp16 = true")
        if self.profile is not None and not self.profiled:
            raise ValueError(f"profile = {self.profile}: write START:STOP, 1 <= START <= STOP <= steps = {self.steps}")
        return self

    @property
    def profiled(self) -> range:
        """Steps to be profiled, counted from 1; empty: none."""
        found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", self.profile or "0:0")
        start, stop = (0, -1) if found is None else map(int, found.groups())
        return range(start, stop + 1) if stop <= self.steps else range(0)


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """How gradients move the weights."""

    kind: Literal["adamw", "adamw_rms", "adafactor"] = "adamw"
    """`adamw_rms`: AdamW whose rate for each parameter is lr * max(1e-3, RMS of the parameter), for T5 from scratch (lr
    near 2e-2). `adafactor`: no first moment, a second moment by rows and columns, the same scaling, lr at most
    1 / sqrt(step); only without ZeRO (zero0)."""
    lr: Annotated[float, Field(gt=0)] = 6e-4
    """Peak learning rate (6e-4: Text+Chem T5)."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Decay of the moment estimates (adamw, adamw_rms)."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator (adamw, adamw_rms)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled; not applied to norms, biases and embeddings."""
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient; 0: no clipping."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of a running mean of the weights, kept beside the moments (often 0.999): 4 bytes a parameter. 0: none."""


class ScheduleConfig(Section):
    """Learning rate over steps: warm-up, then a decay to `final` of the peak at the last step."""

    kind: Literal["constant", "linear", "cosine", "inverse_sqrt", "wsd"] = "cosine"
    """Shape after the warm-up. `wsd`: the peak, then a linear decay over the last decay_steps."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps of linear warm-up."""
    final: Fraction = 0.1
    """Share of the peak that is left at the last step (linear, cosine, wsd)."""
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
    """When checkpoints are published and which are kept."""

    every: Positive = 500
    """Steps between checkpoints; the last step always has one."""
    keep: Positive = 2
    """Newest checkpoints kept."""
    keep_every: Annotated[int, Field(ge=0)] = 0
    """Checkpoints at multiples of this are kept for good; 0: none."""
    copy_to: str | None = None
    """Folder or URL (s3://, ...) to which each checkpoint is copied while training goes on, in a folder of the run's
    name, with the same retention. A run without checkpoints goes on from the newest copy. None: no copies."""
    direct_io: bool = True
    """Write past the page cache (O_DIRECT), where the file system can."""


class ValidationConfig(Section):
    """The loss on a fixed slice of another split while training, and what follows from it."""

    every: Annotated[int, Field(ge=0)] = 0
    """Steps between validations; the last step has one as well. 0: none."""
    split: Literal["valid", "test"] = "valid"
    """Which split the slice is taken from."""
    max_rows: Positive = 256
    """Most rows of each task. Which they are depends on the data alone. Rows over the caps of [data] are left out or
    cut, as in training."""
    metric: str = "loss"
    """What is judged, the lower the better: `loss`, the mean over tasks of each task's loss per target token, or one
    task's, as `loss/forward`."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Validations in a row without a new best after which the run ends, as if its steps were done. 0: never."""
    keep_best: bool = True
    """Publish a checkpoint at every new best, keep it whatever [checkpoint] keeps, and export and evaluate it instead
    of the last one."""
    samples: Annotated[int, Field(ge=0)] = 2
    """Greedy predictions of each task shown at every validation, of at most 64 tokens: samples.jsonl, TensorBoard."""

    @model_validator(mode="after")
    def _check(self) -> ValidationConfig:
        if self.patience and not self.every:
            raise ValueError(f"patience = {self.patience}, but every = 0: nothing is validated")
        return self


class HealthConfig(Section):
    """What is not right in a step, and what slows or stops a run; docs/training.md has what is done."""

    window: Annotated[int, Field(ge=8)] = 64
    """Applied steps whose losses a new loss is compared with; the first so many are not judged for spikes."""
    spike_zscore: Annotated[float, Field(ge=0.0)] = 10.0
    """A step is left out if its loss lies so many deviations (1.48 median absolute ones) above the median of the
    window; 0: never."""
    max_bad_steps: Positive = 5
    """Steps left out in a row after which the run goes back to its last checkpoint, once, and then stops."""
    hang_s: Annotated[float, Field(ge=0.0)] = 1800.0
    """Seconds without progress after which the run ends and names the rank that stands still; four times as long until
    the first step is done and for saving, validating and writing a profile, eight times for fetching weights and
    resuming. 0: never."""
    rendezvous_s: Annotated[float, Field(gt=0.0)] = 60.0
    """Seconds in which all ranks of a job have to come to rank 0; those that did not are named, and the run ends, to be
    started again. More where Python starts slowly, from a network file system."""
    slow_rank: Annotated[float, Field(gt=1.0)] = 1.5
    """A rank is told that takes so many times as long as the others."""
    starved: Fraction = 0.3
    """Share of the time spent waiting for data from which on it is told."""


class EvaluateConfig(Section):
    """What the run's own evaluation at its end does, and the defaults of `bigchem evaluate`."""

    at_end: bool = True
    """Consolidate and evaluate when training is finished."""
    split: Literal["valid", "test"] = "test"
    """Which split is predicted."""
    max_rows: Annotated[int, Field(ge=0)] = 0
    """Rows per task; 0: all."""
    num_beams: Annotated[int, Field(ge=1, le=100)] = 1
    """1: greedy."""
    num_return: Positive = 1
    """Predictions kept of each example (k-best), at most num_beams."""
    max_new_tokens: Positive = 512
    """Longest prediction."""
    batch_tokens: Positive = 8192
    """Padded source tokens of one batch of predictions."""
    bootstrap: Annotated[int, Field(ge=0)] = 200
    """Resamples for the 95 % intervals; 0: no intervals."""
    similarity: bool = False
    """Also MACCS, RDK and Morgan similarities of reactions, which take longer than all their other metrics together."""

    @model_validator(mode="after")
    def _check(self) -> EvaluateConfig:
        if self.num_return > self.num_beams:
            raise ValueError(f"num_return = {self.num_return} > num_beams = {self.num_beams}")
        return self


class NotifyConfig(Section):
    """Who is told when a run ends, fails or stands still; docs/training.md has the messages."""

    on: tuple[Literal["end", "failure", "stall"], ...] = ("end", "failure", "stall")
    """What is told. `end`: the run is finished, or was stopped. `failure`: it has failed and is not started again.
    `stall`: it hangs."""
    command: tuple[str, ...] = ()
    """A program and its arguments, without a shell. The message is JSON on its stdin; BIGCHEM_RUN, BIGCHEM_EVENT,
    BIGCHEM_STATE and BIGCHEM_REASON are in its environment. Empty: none."""
    webhook_env: str | None = None
    """Environment variable that holds the URL to which {"text": ...} is sent, as Slack and Mattermost take it. The URL
    itself is a secret, and run folders are not. None: no webhook."""
    stall_s: Annotated[float, Field(ge=0.0)] = 0.0
    """Seconds without a finished step after which a stall is told while the run goes on. 0: only a hang is, which ends
    the attempt after health.hang_s."""

    @model_validator(mode="after")
    def _check(self) -> NotifyConfig:
        name = self.webhook_env
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("webhook_env is the name of a variable, not the URL: a run's files are no place for it")
        return self


class RunConfig(Section):
    """One run: what is trained on what, how, and how it is judged."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    """Name of the run and of its folder."""
    runs: str = "runs"
    """Folder that holds run folders."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the weights, of dropout and of the order of examples."""
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

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        if self.schedule.warmup_steps >= self.train.steps:
            raise ValueError(
                f"schedule.warmup_steps = {self.schedule.warmup_steps} >= train.steps = {self.train.steps}: "
                "the run would end inside its warm-up"
            )
        metric, known = self.validation.metric, ["loss", *(f"loss/{task}" for task in self.data.mixture)]
        if metric not in known:
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
