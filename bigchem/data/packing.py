"""Examples to packed batches. Needs torch and numpy alone, so that the model can be benchmarked without the rest."""

import numpy as np
import torch

from bigchem.data.ragged import IntArray
from bigchem.model.dropout import token_hashes
from bigchem.model.layout import cu_seqlens
from bigchem.model.packed_batch import PackedBatch


def pack(
    sources: list[np.ndarray], targets: list[np.ndarray], task_ids: IntArray, examples: IntArray | None = None
) -> PackedBatch:
    """Token ids of B examples as one packed batch. B = 0 gives one example of length 1 whose label is ignored: a rank
    without work must still take part in every collective operation. examples [B]: their numbers in the step, for
    dropout; default: 0 to B - 1."""
    if not sources:
        sources, targets, task_ids = [np.zeros(1)], [np.full(1, -100)], np.zeros(1, dtype=np.int64)
    source_lens, target_lens = (np.array([len(s) for s in side]) for side in (sources, targets))
    examples = np.arange(len(sources)) if examples is None else examples
    return packed(np.concatenate(sources), source_lens, np.concatenate(targets), target_lens, task_ids, examples)


def packed(
    source_ids: np.ndarray,
    source_lens: IntArray,
    target_ids: np.ndarray,
    target_lens: IntArray,
    task_ids: IntArray,
    examples: IntArray,
) -> PackedBatch:
    """The same from flat ids and the examples' lengths [B], of which none may be missing."""
    return PackedBatch(
        source_ids=torch.from_numpy(source_ids.astype(np.int64)),
        target_ids=torch.from_numpy(target_ids.astype(np.int64)),
        source_cu_seqlens=cu_seqlens(source_lens),
        target_cu_seqlens=cu_seqlens(target_lens),
        task_ids=torch.from_numpy(np.asarray(task_ids, dtype=np.int64)),
        source_hashes=torch.from_numpy(token_hashes(examples, source_lens)),
        target_hashes=torch.from_numpy(token_hashes(examples, target_lens)),
        source_lens=source_lens,
        target_lens=target_lens,
    )
