"""The kernels under Triton's interpreter, against float64. Inputs are small: a case takes 0.1 to 4 s."""

import itertools
import math

import pytest
import torch

pytest.importorskip("triton")

from bigchem.base.errors import UserError
from bigchem.model.attention import Setting, attention, prepare
from bigchem.model.kernels import launch
from bigchem.model.kernels.tiles import Tile, Tiles
from bigchem.model.kernels.varlen_attention import (
    column_factors,
    dropout_mask,
    grad_of_bias,
    plan_lengths,
    triton_attention,
    varlen_attention,
)
from bigchem.model.layout import Layout

pytestmark = pytest.mark.heavy

REACH = {False: 91, True: 113}
"""By causal: T5's encoder and decoder."""


layout = Layout.of


def mix(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def keep_mask(seed: int, dropout_p: float, hashes: list[int], num_heads: int, num_keys: int) -> torch.Tensor:
    """bool [heads, rows, keys]: what the kernels keep, implemented independently."""

    def kept(head: int, token: int, key: int) -> bool:
        row = mix((token ^ mix((seed + head * 0x9E3779B9) & 0xFFFFFFFF)) & 0xFFFFFFFF) | 1
        bits = (row * (mix(key + 0x9E3779B9) | 1)) & 0xFFFFFFFF
        return (bits - 2**32 if bits >= 2**31 else bits) >= round(dropout_p * 2**32) - 2**31

    heads = [[[kept(head, token, key) for key in range(num_keys)] for token in hashes] for head in range(num_heads)]
    return torch.tensor(heads, dtype=torch.bool).view(num_heads, len(hashes), num_keys)


def reference(q, k, v, bias, both: Layout, causal: bool, dropout_p: float = 0.0, seed: int = 0) -> torch.Tensor:
    """The formula, sequence by sequence, in float64."""
    cu_q, cu_k = (cu.tolist() for cu in both.host)
    outputs = [q.double()[:0]]
    for q0, q1, k0, k1 in zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:], strict=True):
        sq, sk, sv = (x.double().transpose(0, 1) for x in (q[q0:q1], k[k0:k1], v[k0:k1]))
        scores = sq @ sk.transpose(1, 2)
        distance = torch.arange(k1 - k0) - torch.arange(q1 - q0)[:, None]
        if bias is not None:
            reach = bias.shape[1] // 2
            scores = scores + bias.double()[:, distance.clamp(-reach, reach) + reach]
        if causal:
            scores = scores.masked_fill(distance > 0, float("-inf"))
        p = scores.softmax(-1)
        if dropout_p > 0:
            p = p * keep_mask(seed, dropout_p, both.hashes[q0:q1].tolist(), q.shape[1], k1 - k0) / (1 - dropout_p)
        outputs.append((p @ sv).transpose(0, 1))
    return torch.cat(outputs)


def errors(
    lengths_q, lengths_k=None, *, has_bias=True, causal=False, dim=16, heads=2, dtype=torch.float32, reach=None, p=0.0
) -> list[float]:
    """Largest error of the output and each gradient, relative to the largest element in float64."""
    lengths_k = lengths_k or lengths_q
    generator = torch.Generator().manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    q, k, v = (
        (draw(sum(n), heads, dim) * dim**-0.25).to(dtype).requires_grad_() for n in (lengths_q, *[lengths_k] * 2)
    )
    bias = draw(heads, 2 * (reach or REACH[causal]) + 1).requires_grad_() if has_bias else None
    inputs = [x for x in (q, k, v, bias) if x is not None]
    upstream = draw(*q.shape)
    both = layout(lengths_q, lengths_k)
    found = triton_attention(q, k, v, bias, both, causal=causal, dropout_p=p, seed=3)
    expected = reference(q, k, v, bias, both, causal, p, seed=3)
    got = [found, *torch.autograd.grad((found * upstream).sum(), inputs)]
    want = [expected, *torch.autograd.grad((expected * upstream).sum(), inputs)]
    assert [g.dtype for g in got] == [dtype, *(x.dtype for x in inputs)]
    result = [
        float((a.detach().double() - b.detach()).abs().max() / b.detach().abs().max().double().clamp_min(1e-12))
        for a, b in zip(got, want, strict=True)
        if b.numel()
    ]
    assert all(map(math.isfinite, result)), f"NaN among {result}"  # max() would not see it
    return result


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


RAGGED = [5, 0, 70, 1, 33, 0]


def thorough(*values: object) -> list:
    """Cases that repeat another's path: the interpreter is slow."""
    return [pytest.param(value, marks=pytest.mark.thorough) for value in values]


@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "decoder"])
@pytest.mark.parametrize("dim", [24, *thorough(16, 64, 128)])
def test_self_attention_and_all_gradients_equal_float64(dim: int, causal: bool) -> None:
    assert max(errors(RAGGED, causal=causal, dim=dim)) < 3e-6


@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "decoder"])
def test_distances_beyond_the_bias_equal_float64(causal: bool) -> None:
    assert max(errors([150, 3], causal=causal, heads=1)) < 3e-6


@pytest.mark.parametrize("reach", [1, 18, *thorough(2, 16, 20)])
@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "decoder"])
def test_short_reaches_put_far_distances_into_every_tile(reach: int, causal: bool) -> None:
    assert max(errors([40, 9], causal=causal, reach=reach, heads=1)) < 3e-6


@pytest.mark.parametrize(
    ("lengths_q", "lengths_k"),
    [([3, 40, 16, 0], [50, 9, 16, 7]), ([4, 0, 70], [0, 5, 3]), ([2, 3], [0, 0]), ([0, 0], [1, 20])],
)
def test_cross_attention_equals_float64_also_without_keys_or_queries(
    lengths_q: list[int], lengths_k: list[int]
) -> None:
    assert max(errors(lengths_q, lengths_k, has_bias=False)) < 3e-6


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)], ids=["fp16", "bf16"])
@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "decoder"])
def test_half_precision_is_as_near_float64_as_it_can_be(dtype: torch.dtype, allowed: float, causal: bool) -> None:
    assert max(errors([5, 0, 100, 64, 1], causal=causal, dim=64, dtype=dtype)) < allowed


@pytest.mark.parametrize(
    "causal", [pytest.param(False, id="encoder", marks=pytest.mark.thorough), pytest.param(True, id="decoder")]
)
def test_dropout_is_one_mask_in_forward_and_backward(causal: bool) -> None:
    assert max(errors(RAGGED, causal=causal, p=0.3)) < 3e-6
    assert max(errors([5, 64, 17], causal=causal, p=0.3, dim=64, dtype=torch.float16)) < 4e-3  # the short kernel alone


def test_dropout_of_cross_attention() -> None:
    assert max(errors([3, 40, 16, 0], [50, 9, 16, 7], has_bias=False, p=0.5)) < 3e-6


TILES = {
    "one tile for all": Tiles(*[Tile(128, 128, 4, 1)] * 3, Tile(128, 128, 4, 1, 2), Tile(128, 128, 4, 1, 3)),
    "wide": Tiles(
        Tile(32, 64, 4, 1), Tile(32, 32, 4, 1), Tile(16, 64, 4, 1), Tile(32, 32, 4, 1, 3), Tile(16, 16, 4, 1, 2)
    ),
    "tall": Tiles(
        Tile(64, 16, 4, 1), Tile(64, 16, 4, 1), Tile(64, 16, 4, 1), Tile(64, 32, 4, 1, 1), Tile(32, 32, 4, 1, 8)
    ),
}


@pytest.mark.parametrize("name", ["one tile for all", "wide", *thorough("tall")])
@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "decoder"])
def test_results_and_dropout_do_not_depend_on_the_tiles(
    name: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "tiles_for", lambda *_: TILES[name])
    assert max(errors(RAGGED, causal=causal, p=0.2)) < 3e-6
    assert max(errors([20, 100], causal=causal, reach=20, heads=1)) < 3e-6


def test_an_enormous_bias_and_one_of_minus_infinity_leave_no_nan() -> None:
    """The first overflows in missing rows; the second gives tiles in which nothing is attended."""
    lengths = [70, 5]
    q, k, v = (torch.randn(75, 1, 16).requires_grad_() for _ in range(3))
    for bias in (torch.full((1, 183), 200.0), torch.zeros(1, 183).index_fill_(1, torch.arange(80), -math.inf)):
        both, leaf = layout(lengths, lengths), bias.clone().requires_grad_()
        found = triton_attention(q, k, v, leaf, both, causal=False, dropout_p=0.0, seed=0)
        expected = reference(q, k, v, bias, both, False)
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
        got, want = (torch.autograd.grad(x.square().sum(), [q, k, v]) for x in (found, expected))
        for a, b in zip(got, want, strict=True):
            assert (a - b).abs().max() < 1e-3 * b.abs().max()  # scores of 200 keep two digits fewer
        found = triton_attention(q, k, v, leaf, both, causal=False, dropout_p=0.0, seed=0)
        assert torch.autograd.grad(found.square().sum(), leaf)[0].isfinite().all()


def test_dropout_of_everything_gives_zeros() -> None:
    q, k, v = (torch.randn(24, 2, 16).requires_grad_() for _ in range(3))
    out = triton_attention(q, k, v, None, layout([20, 4], [20, 4]), causal=True, dropout_p=1.0, seed=0)
    grads = torch.autograd.grad(out.sum(), [q, k, v])
    assert not any(x.any() for x in (out, *grads))


def test_work_that_was_planned_for_another_dtype_is_planned_again() -> None:
    """Autocast: weights are fp32, queries bf16, and the tiles differ."""
    both = layout([9, 70, 30], [9, 70, 30])
    prepare(both, "triton", Setting(torch.device("cpu"), torch.float32, 16))
    q, k, v = (torch.randn(109, 2, 16, dtype=torch.bfloat16).requires_grad_() for _ in range(3))
    bias = torch.randn(2, 183).requires_grad_()
    found = triton_attention(q, k, v, bias, both, causal=False, dropout_p=0.0, seed=0)
    expected = reference(q, k, v, bias, both, False)
    got, want = (torch.autograd.grad(x.sum(), [q, k, v, bias]) for x in (found, expected))
    for a, b in zip(got, want, strict=True):
        assert (a - b).abs().max() < 0.03 * b.abs().max()


def test_inputs_need_not_be_contiguous() -> None:
    q, k, v = (torch.randn(2, 30, 16).transpose(0, 1) for _ in range(3))
    bias, both = torch.randn(183, 2).t(), layout([10, 20], [10, 20])
    found = triton_attention(q, k, v, bias, both, causal=False, dropout_p=0.0, seed=0)
    torch.testing.assert_close(found.double(), reference(q, k, v, bias, both, False), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 183), (2, 20), (2, 1)])
def test_a_bias_that_does_not_fit_is_refused(size: tuple[int, int]) -> None:
    q = torch.zeros(3, 2, 16)
    with pytest.raises(UserError, match=r"expected \[heads, 2R \+ 1\]"):
        triton_attention(q, q, q, torch.zeros(size), layout([3], [3]), causal=False, dropout_p=0.0, seed=0)


def test_the_bias_gradient_is_the_same_to_the_bit_each_time() -> None:
    q, k, v = (torch.randn(80, 1, 16).requires_grad_() for _ in range(3))
    bias = torch.randn(1, 183).requires_grad_()
    both = layout([70, 10], [70, 10])

    def grad() -> torch.Tensor:
        out = triton_attention(q, k, v, bias, both, causal=False, dropout_p=0.1, seed=1)
        return torch.autograd.grad(out.square().sum(), bias)[0]

    assert torch.equal(grad(), grad())


def test_the_mask_that_benchmarks_check_against_is_the_kernels() -> None:
    hashes = layout([5, 30], [1, 1]).hashes
    assert torch.equal(dropout_mask(-7, 0.4, hashes, 3, 40), keep_mask(-7, 0.4, hashes.tolist(), 3, 40))


@pytest.mark.parametrize("causal", [False, True], ids=["encoder", "decoder"])
def test_the_bias_gradient_alone_equals_float64(causal: bool) -> None:
    """For attention by another library, without a gradient of the bias."""
    lengths, heads = [150, 5, 0, 40], 2
    q, k, v = (torch.randn(195, heads, 16, dtype=torch.float64) / 2 for _ in range(3))
    bias = torch.randn(heads, 2 * 20 + 1, dtype=torch.float64).requires_grad_()
    both, upstream = layout(lengths, lengths), torch.randn(195, heads, 16)
    out = reference(q, k, v, bias, both, causal)
    expected = torch.autograd.grad((out * upstream).sum(), bias)[0]
    lse = torch.zeros(heads, 195)
    for q0, q1 in itertools.pairwise(both.host[0].tolist()):
        distance = torch.arange(q1 - q0) - torch.arange(q1 - q0)[:, None]
        scores = torch.einsum("mhd,nhd->hmn", q[q0:q1], k[q0:q1]) + bias[:, distance.clamp(-20, 20) + 20]
        scores = scores.masked_fill(distance > 0, -math.inf) if causal else scores
        lse[:, q0:q1] = scores.logsumexp(-1).detach()
    inputs = (q.float(), k.float(), v.float(), bias.detach().float(), out.detach().float(), lse)
    found = grad_of_bias(upstream, *inputs, both, causal=causal)
    assert (found - expected).abs().max() < 3e-6 * expected.abs().max()


def test_the_front_door_leads_here() -> None:
    q, k, v = (torch.randn(20, 2, 16) for _ in range(3))
    args = (q, k, v, torch.randn(2, 183), layout([8, 12], [8, 12]))
    results = [attention(*args, causal=True, dropout_p=0.0, seed=0, backend=b) for b in ("triton", "eager")]
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)


def test_no_sequences_give_nothing() -> None:
    empty = torch.zeros(0, 2, 16)
    none = layout([], [])
    assert triton_attention(empty, empty, empty, None, none, causal=False, dropout_p=0.0, seed=0).shape == empty.shape


def test_heads_that_are_too_wide_are_refused() -> None:
    q = torch.zeros(3, 1, 160)
    with pytest.raises(UserError, match="at most 128 dimensions, not 160"):
        triton_attention(q, q, q, None, layout([3], [3]), causal=False, dropout_p=0.0, seed=0)


def sample(has_bias: bool, *, transposed: bool = False) -> tuple:
    size = (2, 25, 16) if transposed else (25, 2, 16)
    q, k, v = (torch.randn(size).transpose(0, int(transposed)).requires_grad_() for _ in range(3))
    both = layout([5, 20], [5, 20])
    work = plan_lengths(both.lengths_q, both.lengths_k, 16, torch.float32, q.device)
    bias = torch.randn(2, 183).requires_grad_() if has_bias else None
    tensors = (
        None if bias is None else launch.bias_table(bias, False),
        both.hashes,
        column_factors(20, q.device),
        both.cu_seqlens_q,
        both.cu_seqlens_k,
    )
    return q, k, v, bias, *tensors, work, 20, 20, False, 0.1, 7


@pytest.mark.thorough
@pytest.mark.parametrize("has_bias", [True, False])
def test_torch_accepts_the_operation_schema_fake_kernel_and_gradient(has_bias: bool) -> None:
    torch.library.opcheck(varlen_attention, sample(has_bias))
    torch.library.opcheck(varlen_attention, sample(has_bias, transposed=True))
    assert not varlen_attention(*sample(has_bias))[1].requires_grad


def test_torch_compile_keeps_it_in_one_graph() -> None:
    args = sample(True)

    def layer(q: torch.Tensor) -> torch.Tensor:
        return varlen_attention(q * 2, *args[1:])[0].sin()

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found, expected = compiled(args[0]), layer(args[0])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), [args[0], args[3]]) for x in (found, expected)))
