"""Sections on how a run is conducted: saved, validated, watched, evaluated and reported; its place in a sweep."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bigchem.base.toml import Fraction, Positive, Section


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
