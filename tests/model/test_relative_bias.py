import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from bigchem.model.relative_bias import reach, relative_bias, relative_buckets

HEADS = 2


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (16, 20), (64, 256)])
def test_buckets_are_those_of_transformers_at_every_distance(
    bidirectional: bool, num_buckets: int, max_distance: int
) -> None:
    distance = torch.arange(-600, 601)
    theirs = T5Attention._relative_position_bucket(distance, bidirectional, num_buckets, max_distance)
    ours = relative_buckets(bidirectional, num_buckets, max_distance)
    assert torch.equal(ours[distance.clamp(-max_distance, max_distance) + max_distance], theirs)


def test_bucket_boundaries_16_32_64() -> None:
    at = relative_buckets(True, 32, 128)[128:]
    for boundary in (16, 32, 64):
        assert at[boundary] == at[boundary - 1] + 1 == at[boundary + 1], boundary


@pytest.mark.parametrize(("bidirectional", "expected"), [(True, 91), (False, 113)])
def test_reach_is_where_t5s_buckets_saturate(bidirectional: bool, expected: int) -> None:
    assert reach(bidirectional, 32, 128) == expected
    buckets = T5Attention._relative_position_bucket(torch.arange(-600, 601), bidirectional, 32, 128)
    assert len(set(buckets[: 601 - expected].tolist())) == len(set(buckets[600 + expected :].tolist())) == 1
    assert buckets[601 - expected] != buckets[600 - expected] or buckets[599 + expected] != buckets[600 + expected]


@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative_bias_sums_the_gradient_into_its_buckets(bidirectional: bool) -> None:
    table = torch.nn.Embedding(32, HEADS)
    bias = relative_bias(table, bidirectional, 128)
    far = reach(bidirectional, 32, 128)
    assert bias.shape == (HEADS, 2 * far + 1)
    bias.sum().backward()
    counts = torch.bincount(relative_buckets(bidirectional, 32, 128)[128 - far : 129 + far], minlength=32)
    assert torch.equal(table.weight.grad, counts[:, None].expand(-1, HEADS).float())
