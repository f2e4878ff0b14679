"""T5's relative-position bias as a vector over distances.

The bias depends only on key position minus query position and saturates, so a stack needs [heads, 2R + 1] numbers, with
R the distance at which it saturates, and no [queries, keys] matrix.
"""

import math
from functools import cache

import torch
from torch import Tensor, nn


@cache
def relative_buckets(bidirectional: bool, num_buckets: int, max_distance: int) -> Tensor:
    """Bucket of every distance -R..R (key minus query, R = max_distance): int64 [2R + 1], on the CPU.

    The float32 operations are exactly transformers' (T5Attention._relative_position_bucket): distances such as 16, 32
    and 64 lie on bucket boundaries, and another precision or device would put them on the other side.
    """
    distance = torch.arange(-max_distance, max_distance + 1)
    offset = torch.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        offset = (distance > 0).long() * num_buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp_min(0)
    exact = num_buckets // 2
    logarithmic = torch.log(distance.float() / exact) / math.log(max_distance / exact) * (num_buckets - exact)
    far = (exact + logarithmic.clamp_min(0).long()).clamp_max(num_buckets - 1)
    return offset + torch.where(distance < exact, distance, far)


@cache
def reach(bidirectional: bool, num_buckets: int, max_distance: int) -> int:
    """The smallest R such that all distances <= -R share a bucket, and all >= R: 91 for T5's encoder, 113 for its
    decoder.
    """
    buckets = relative_buckets(bidirectional, num_buckets, max_distance)
    behind, ahead = buckets[: max_distance + 1].flip(0), buckets[max_distance:]
    return max(1, *(int((side != side[-1]).sum()) for side in (behind, ahead)))


def relative_bias(table: nn.Embedding, bidirectional: bool, max_distance: int) -> Tensor:
    """A stack's bias [heads, 2R + 1] fp32 by distance, R = `reach`, from its table [buckets, heads].

    Calls the module's forward, so that ZeRO-3 gathers the table; autograd sums the gradient back into buckets.
    """
    values: Tensor = table(_within_reach(bidirectional, table.num_embeddings, max_distance, table.weight.device))
    return values.float().t().contiguous()


@cache
def _within_reach(bidirectional: bool, num_buckets: int, max_distance: int, device: torch.device) -> Tensor:
    """Buckets of the distances -R..R on a device: copied there once, because a copy waits for the device."""
    far = reach(bidirectional, num_buckets, max_distance)
    buckets = relative_buckets(bidirectional, num_buckets, max_distance)
    return buckets[max_distance - far : max_distance + far + 1].to(device)
