"""Sizes of DeepSpeed's communication buckets, from the model's shape. Pure.

DeepSpeed's defaults are for models of billions of parameters: with buckets of 500 M elements all of t5-base's gradients
are sent at the end of the backward pass, and nothing overlaps.
"""

from bigchem.model.presets import Shape, num_parameters

BUCKETS = 16
"""Buckets that hold a model's gradients: all but the last can be sent during the backward pass."""
SMALLEST, LARGEST = 8_000_000, 200_000_000
"""Elements of a bucket: smaller messages would be bound by latency, larger ones cost memory and hide no more. A choice,
not a measurement."""
LARGEST_PREFETCH = 50_000_000
"""DeepSpeed's default."""
KEPT_ROWS = 10
"""Stage 3 keeps weights of at most this many rows of d_model, as in transformers: norms and tables of relative
positions, and no matrix."""


def derived(shape: Shape, stage: int) -> dict[str, int]:
    """The sizes that matter at a ZeRO stage, in elements: keys of `zero_optimization`.

    reduce_bucket_size: see BUCKETS; a small model fits into one bucket. stage3_prefetch_bucket_size: the decoder block.
    """
    if stage == 0:
        return {}
    n = num_parameters(shape)
    sizes = {"reduce_bucket_size": _millions(min(n, LARGEST, max(SMALLEST, n / BUCKETS)))}
    if stage == 3:
        block = (8 * shape.inner_dim + (3 if shape.gated else 2) * shape.d_ff) * shape.d_model
        sizes["stage3_prefetch_bucket_size"] = _millions(min(block, LARGEST_PREFETCH))
        sizes["stage3_param_persistence_threshold"] = KEPT_ROWS * shape.d_model
    return sizes


def _millions(elements: float) -> int:
    """Rounded up: an embedding of a few more rows changes nothing."""
    return 1_000_000 * -int(-elements // 1_000_000)
