import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from bigchem.model.relative_bias import relative_bias, relative_buckets

HEADS, REACH = 2, 128


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


def test_relative_bias_sums_the_gradient_into_its_buckets() -> None:
    table = torch.nn.Embedding(32, HEADS)
    bias = relative_bias(table, True, REACH)
    assert bias.shape == (HEADS, 2 * REACH + 1)
    bias.sum().backward()
    counts = torch.bincount(relative_buckets(True, 32, REACH), minlength=32)
    assert torch.equal(table.weight.grad, counts[:, None].expand(-1, HEADS).float())
