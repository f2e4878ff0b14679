"""The worst case for a run's memory: its largest micro-batch of its longest examples. Needs no torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bigchem.config import RunConfig
from bigchem.data.ragged import IntArray
from bigchem.data.step_plan import Plan
from bigchem.plan.memory.setup import MemorySetup


def longest_batch(plan: Plan, micro_tokens: int) -> IntArray:
    """[n, 2] lengths of examples as long as the longest in the data, and one shorter, that fill a micro-batch."""
    return filled(longest_example(plan), micro_tokens)


def longest_example(plan: Plan) -> IntArray:
    """[2] tokens of the longest source and the longest target that a run trains on, as one example."""
    longest: IntArray = np.max([rows.longest_seen() for rows in plan.rows.values()], axis=0)
    return longest


def filled(longest: IntArray, micro_tokens: int) -> IntArray:
    """[n, 2] lengths of examples as long as `longest` [2], and one shorter, that fill a micro-batch."""
    count, left = divmod(micro_tokens, int(longest.sum()))
    lengths = [longest] * count
    share = left * int(longest[0]) // int(longest.sum())
    if share and left > share:
        lengths.append(np.array([share, left - share]))
    return np.array(lengths, dtype=np.int64)


def setup_of(config: RunConfig, ds_config: Mapping[str, Any], world_size: int, device: str) -> MemorySetup:
    """A run's MemorySetup. ds_config: completed (bigchem/ds_config). device: "cpu" or "cuda"."""
    setup = MemorySetup(
        zero={},
        world_size=world_size,
        precision=config.train.precision,
        tf32=config.train.tf32,
        optimizer=config.optimizer.kind,
        ema=config.optimizer.ema > 0,
        dropout=config.model.dropout > 0,
        checkpoint_activations=config.train.checkpoint_activations,
        device=device,
    )
    return setup.with_ds_config(ds_config)
