import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bigchem.data.packing import pack
from bigchem.model.flops import forward_flops, peak_flops, training_flops
from bigchem.model.presets import Shape, shape
from bigchem.model.t5 import PackedT5


def of_linear(x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size) -> int:
    """Operations of oneDNN's product, which torch's counter does not count."""
    return 2 * x.numel() * weight[0]


@pytest.mark.parametrize(
    "tiny",
    [Shape(50, 32, 8, 64, 2, 3, 4, gated=False, tied=True), Shape(70, 16, 16, 48, 3, 1, 2, gated=True, tied=False)],
)
def test_training_flops_equal_torchs_counter(tiny: Shape) -> None:
    source, target = np.array([5, 17, 9]), np.array([4, 1, 20])
    sides = [[np.full(n, 2) for n in lens] for lens in (source, target)]
    batch = pack(sides[0], sides[1], np.zeros(3))
    model = PackedT5(tiny, 0.0, dict.fromkeys(("encoder_self", "decoder_self", "cross"), "eager"))
    with FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: of_linear}) as counter:
        model(batch).total.backward()
    # The eager path computes the whole square of causal attention; we count the half that is attended.
    other_half = 3 * 4 * tiny.inner_dim * tiny.num_decoder_layers * (target**2).sum() / 2
    # The gradient of a norm's weight, a sum over tokens, is a product with ones; we count none of the norms.
    norms = source.sum() * (2 * tiny.num_layers + 1) + target.sum() * (3 * tiny.num_decoder_layers + 1)
    expected = training_flops(tiny, source, target) + other_half + 2 * tiny.d_model * norms
    assert counter.get_total_flops() == expected


def test_t5_base_at_48_and_512_tokens() -> None:
    base = shape("t5-base")
    assert training_flops(base, [48], [48]) / 96 == pytest.approx(0.675e9, rel=0.001)
    assert training_flops(base, [512], [512]) / 1024 == pytest.approx(0.739e9, rel=0.001)


def test_flops_of_a_batch_are_the_sum_over_its_sequences() -> None:
    small = shape("t5-small")
    apart = forward_flops(small, [10], [5]) + forward_flops(small, [30], [0])
    assert forward_flops(small, [10, 30], [5, 0]) == pytest.approx(apart, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "fp32", 19.5),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA H100 NVL", "tf32", 417.5),
        ("NVIDIA H200", "bf16", 989.4),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA L40S", "tf32", 183),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
    ],
)
def test_peaks_are_those_of_the_data_sheets(name: str, precision: str, tera: float) -> None:
    assert peak_flops(name, precision) == tera * 1e12


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("cpu", "fp32"),
        ("NVIDIA A10G", "bf16"),
        ("NVIDIA L40", "bf16"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bf16"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "bf16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("NVIDIA GeForce RTX 4090 D", "bf16"),
        ("Tesla V100-SXM2-16GB", "bf16"),
        ("Tesla V100-SXM2-16GB", "tf32"),
    ],
)
def test_what_is_not_known_has_no_peak(name: str, precision: str) -> None:
    assert peak_flops(name, precision) is None
