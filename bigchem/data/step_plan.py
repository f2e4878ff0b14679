"""The plan of a run's data: which rows are trained on, in which step, on which rank.

It follows from the configuration and the lengths in the data folder; no row is read. From the inside out:
`TrainingRows` numbers the rows of a task that are within the caps, `Order` puts examples in order, `Steps` cuts the
order into optimizer steps, and `deal` distributes a step over the ranks.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bigchem.base.errors import UserError
from bigchem.config import HEADROOM, DataConfig, ModelConfig, RunConfig
from bigchem.data.order.examples import Flat, Order, Permutation, Windowed
from bigchem.data.order.mixture import Mixture, tempered
from bigchem.data.order.row_subset import RowSubset
from bigchem.data.order.span_corruption import Spans, row_keys
from bigchem.data.order.steps import Deal, Step, Steps, deal
from bigchem.data.ragged import IntArray
from bigchem.data.storage.cache import Cache
from bigchem.data.storage.remote import is_url
from bigchem.data.storage.shards import OPEN_REMOTE, Data, TaskRows
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.model import flops, presets
from bigchem.model.weights import hf_config, hub
from bigchem.tasks import SPANS, Task

SCAN = 1 << 20
"""Lengths read at a time, a multiple of row_subset.WORD: the largest index opens in a few megabytes."""

Cost = Callable[[IntArray], IntArray]
"""From source and target tokens of examples [n, 2] to the cost of computing each [n]."""


class TrainingRows:
    """The rows of one task that a run trains on, numbered without gaps, and their lengths as the model sees them.

    raw: [rows, prompts, 2] tokens as stored. longest: maximum source and target tokens as stored. over_caps: whether
    rows that are longer with any prompt are skipped, or cut. spans: for span tasks, whose rows are corrupted and need
    at least two tokens. seed, task_id: of the draw of prompts.
    """

    def __init__(
        self,
        raw: npt.NDArray[np.integer],
        longest: tuple[int, int],
        over_caps: str,
        spans: Spans | None,
        seed: int = 0,
        task_id: int = 0,
    ) -> None:
        self._raw, self._spans, self._draw = raw, spans, (seed, task_id)
        self.longest = np.array(longest, dtype=np.int64)
        self.cut = self.too_short = 0
        shortest = 1 if spans is None else 3
        masks = []
        for start in range(0, len(raw), SCAN):
            lengths = np.asarray(raw[start : start + SCAN]).max(axis=1)
            selected = lengths[:, 0] >= shortest
            self.too_short += int(np.count_nonzero(~selected))
            fits = (lengths[:, 0] <= longest[0]) & (lengths[:, 1] <= longest[1])
            if over_caps == "cut":
                self.cut += int(np.count_nonzero(~fits))
            else:
                selected &= fits
            masks.append(selected)
        self._subset = RowSubset.of(masks)
        self.size, self.num_skipped = self._subset.size, len(raw) - self._subset.size

    def tokens(self) -> int:
        """Source and target tokens of all these rows, with a mean prompt."""
        mask, blocks = self._subset.mask(), range(0, len(self._raw), SCAN)
        found = sum(int(self._seen(self._raw[s : s + SCAN][mask[s : s + SCAN]]).sum()) for s in blocks)
        return found // int(self._raw.shape[1])

    def longest_seen(self) -> IntArray:
        """[2] tokens of the longest source and of the longest target, as the model sees them; zeros without rows."""
        mask, longest = self._subset.mask(), np.zeros(2, dtype=np.int64)
        for start in range(0, len(self._raw), SCAN):
            seen = self._seen(self._raw[start : start + SCAN][mask[start : start + SCAN]])
            longest = np.maximum(longest, seen.reshape(-1, 2).max(axis=0, initial=0))
        return longest

    def skipped(self) -> str:
        """How many rows are not trained on, and why."""
        counts = {"too long": self.num_skipped - self.too_short, "too short for spans": self.too_short}
        return ", ".join(f"{count:,} {why}" for why, count in counts.items() if count)

    def stored(self, numbers: IntArray) -> IntArray:
        """Row numbers in the data folder [n] of numbers [n] in this subset."""
        return self._subset.stored(numbers)

    def lengths(self, numbers: IntArray, epochs: IntArray) -> IntArray:
        """[n, 2] source and target tokens, as the model sees them."""
        stored = self.stored(numbers)
        return self._seen(self._raw[stored, self.prompts(stored, epochs)])

    def prompts(self, stored: IntArray, epochs: IntArray) -> IntArray:
        """[n] which prompt is before each stored row in an epoch, drawn anew in each."""
        number = self._raw.shape[1]
        if number == 1:
            return np.zeros_like(stored)
        keys = row_keys(*self._draw, stored, epochs, "prompts")
        return (keys % np.uint64(number)).astype(np.int64)

    def per_shard(self, shard_rows: IntArray) -> IntArray:
        """[shards] rows of each shard that are trained on."""
        counts: IntArray = np.add.reduceat(self._subset.mask(), np.cumsum(shard_rows) - shard_rows, dtype=np.int64)
        return counts

    def _seen(self, raw: npt.NDArray[np.integer]) -> IntArray:
        lengths = np.minimum(raw.astype(np.int64), self.longest)
        return lengths if self._spans is None else self._spans.lengths(lengths[..., 0].reshape(-1) - 1)


class Plan:
    """Steps of a run and their deals. UserError if a task has no rows within the caps.

    tasks, rows: the mixture's tasks and their TrainingRows, by id. cost: by which micro-batches are balanced; None:
    tokens. split: where the rows are.
    """

    def __init__(
        self, data: Data, config: DataConfig, seed: int, cost: Cost | None = None, *, split: str = "train"
    ) -> None:
        self._config, self._cost = config, cost
        weights = mixture_of(config, data, split)
        self.tasks: dict[int, Task] = {}
        for name in weights:
            found = data.tasks.find(name, "data.mixture")
            self.tasks[found.id] = found
        self.spans = _spans(data, config, weights)
        self.rows: dict[int, TrainingRows] = {}
        permutations: dict[int, Permutation] = {}
        for task, about in self.tasks.items():
            stored = data.split(split, about.name)
            rows = _training_rows(stored, config, self.spans if about.spans else None, seed)
            if not rows.size:
                raise UserError(
                    f"no row of task '{about.name}' is left: {rows.skipped()}",
                    str(data.path),
                    "raise max_source_tokens and max_target_tokens in [data], or drop the task",
                )
            self.rows[task] = rows
            permutations[task] = (
                Windowed(seed, task, rows.per_shard(stored.shard_rows), config.shuffle_window)
                if config.shuffle_window
                else Flat(seed, task, rows.size)
            )
        sizes = {task: rows.size for task, rows in self.rows.items()}
        shares = {task: weights[about.name] for task, about in self.tasks.items()}
        if config.temperature is not None:
            shares = tempered(shares, sizes, config.temperature)
        self.mixture = Mixture(shares, sizes, config.max_epochs)
        self._weights = weights
        self.steps = Steps(
            Order(permutations, self.mixture), {t: r.lengths for t, r in self.rows.items()}, config.global_tokens
        )

    def deal(self, step: Step, world_size: int, grad_accum_steps: int | None = None) -> Deal:
        """Which rank computes which of the step's examples; see order.steps.deal."""
        config = self._config
        return deal(
            step.lengths.sum(axis=1),
            world_size,
            config.micro_tokens,
            config.global_tokens,
            cost=None if self._cost is None else self._cost(step.lengths),
            grad_accum_steps=grad_accum_steps,
        )

    def stored(self, step: Step) -> IntArray:
        """[n] row numbers in the data folder, per task, of a step's examples."""
        rows = np.empty_like(step.rows)
        for task in np.unique(step.task_ids).tolist():
            of_task = step.task_ids == task
            rows[of_task] = self.rows[task].stored(step.rows[of_task])
        return rows

    def describe(self) -> str:
        """The training data in one line."""
        parts = []
        for task, rows in self.rows.items():
            part = f"{self.tasks[task].name} {100 * self.mixture.shares[task]:.3g} % from {rows.size:,} rows"
            part += f", skipped: {rows.skipped()}" if rows.num_skipped else ""
            part += f", {rows.cut:,} cut" if rows.cut else ""
            parts.append(part)
        return "; ".join(parts)

    def advice(self, data: Data) -> str | None:
        """What to change if every step reads from all of the remote data and the cache is too small for it."""
        used = sum(s.bytes for name in self._weights for s in data.index.shards["train"][name])
        capacity = int(self._config.cache_gb * 1e9)
        if not is_url(self._config.path) or self._config.shuffle_window or used <= capacity:
            return None
        return (
            f"every step reads from all {used / 1e9:.1f} GB of the training shards, and the cache holds "
            f"{self._config.cache_gb:g} GB: set data.shuffle_window, or raise data.cache_gb"
        )

    def check_steps(self, steps: int) -> None:
        """UserError if `max_epochs` ends the data before so many steps; 0.2 % tolerance."""
        if self.mixture.end is None:
            return
        tokens = self._config.max_epochs * sum(rows.tokens() for rows in self.rows.values())
        enough = int(tokens / (self._config.global_tokens * (1 - HEADROOM)))
        if steps > 1.002 * enough + 1:
            raise UserError(
                f"{steps:,} steps, but max_epochs = {self._config.max_epochs} leaves data for about {enough:,}",
                "data.max_epochs",
                "raise it (0: no limit), or train fewer steps",
            )


def keys_of(step: Step, rows: IntArray, stored: Mapping[int, TaskRows]) -> list[str]:
    """Content keys of a step's examples, in order. rows: see Plan.stored. stored: by task id."""
    return [stored[task].text(row)[0] for task, row in zip(step.task_ids.tolist(), rows.tolist(), strict=True)]


def open_data(config: DataConfig) -> Data:
    """The data folder that a run names, local or remote, with its cache."""
    cache = None
    if is_url(config.path):
        cache = Cache(None if config.cache is None else Path(config.cache), int(config.cache_gb * 1e9))
    # Two windows' shards: crossing from one to the next maps nothing twice.
    return Data(config.path, check=config.check, cache=cache, open_remote=max(OPEN_REMOTE, 2 * config.shuffle_window))


def flops_cost(model: ModelConfig, vocab_size: int) -> Cost:
    """Cost of examples in operations of the run's model; UserError if there is no such model."""
    if model.init_from is None:
        shape = presets.shape(model.preset, vocab_size)
    else:
        shape = hf_config.read_shape(hub.fetched(model.init_from, weights=False))
    return lambda lengths: flops.forward_flops_each(shape, lengths[:, 0], lengths[:, 1])


def mixture_of(config: DataConfig, data: Data, split: str = "train") -> dict[str, float]:
    """Weight by task: the configuration's, or 1 for each task that has rows in the split."""
    return config.mixture or dict.fromkeys(data.tasks.only(data.index.rows(split)), 1.0)


def evaluated_tasks(config: RunConfig, data: Data) -> tuple[str, ...]:
    """The tasks that a run's evaluation predicts, if the split has rows of them. UserError for unknown tasks, or if
    the run is trained on none of them."""
    wanted = config.evaluate.tasks
    for name in wanted:
        data.tasks.labelled(name, "evaluate.tasks")
    tasks = tuple(data.tasks.scored.only(mixture_of(config.data, data)))
    found = tuple(task for task in tasks if not wanted or task in wanted)
    if wanted and not found:
        raise UserError(f"the run is trained on none of them: {', '.join(wanted)}", "evaluate.tasks")
    return found


def with_mixture(config: RunConfig, data: Data) -> RunConfig:
    """The configuration with the mixture that its data give where it names none."""
    mixture = {"mixture": mixture_of(config.data, data)}
    return config.model_copy(update={"data": config.data.model_copy(update=mixture)})


def _spans(data: Data, config: DataConfig, weights: Mapping[str, float]) -> Spans | None:
    if not SPANS.keys() & weights.keys():
        return None
    sentinels = Tokenizer.load(data.tokenizer_dir).sentinels
    if not sentinels:
        raise UserError("the tokenizer has no sentinels for span corruption", str(data.path), "build the data again")
    return Spans(config.spans.density, config.spans.mean_span, np.array(sentinels, dtype=np.int32))


def _training_rows(stored: TaskRows, config: DataConfig, spans: Spans | None, seed: int) -> TrainingRows:
    caps = (config.max_source_tokens, config.max_target_tokens)
    if spans is not None:
        tokens = np.arange(2, 2 * sum(caps))
        fitting = tokens[(spans.lengths(tokens) <= caps).all(axis=1)]
        if not len(fitting):
            raise UserError("too low for span corruption, whose shortest sides have 3 tokens", "data.max_*_tokens")
        caps = (int(fitting[-1]) + 1, 0)  # rows are stored with the end token
    return TrainingRows(stored.prompt_lengths, caps, config.over_caps, spans, seed, stored.about.id)
