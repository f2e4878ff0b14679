import numpy as np
import pytest
import torch

from bigchem.base.errors import UserError
from bigchem.model.attention import KINDS, Setting, attention, choose_backends, describe
from bigchem.model.dropout import token_hashes
from bigchem.model.layout import Layout
from bigchem.model.padded import bucketing

CPU = Setting(torch.device("cpu"), torch.float32, 64)
GPU = Setting(torch.device("cuda"), torch.bfloat16, 64)
HEADS, DIM, REACH = 2, 8, 128


def inputs(lengths_q: list[int], lengths_k: list[int], dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = [(sum(n), HEADS, DIM) for n in (lengths_q, lengths_k, lengths_k)]
    tensors = [torch.randn(size, generator=generator) for size in (*rows, (HEADS, 2 * REACH + 1))]
    return [t.to(dtype).requires_grad_() for t in tensors]


def output_and_grads(backend: str, lengths_q: list[int], lengths_k: list[int], has_bias: bool, causal: bool) -> list:
    q, k, v, bias = inputs(lengths_q, lengths_k)
    wanted = (q, k, v, bias) if has_bias else (q, k, v)
    out = attention(
        q, k, v, bias if has_bias else None, Layout.of(lengths_q, lengths_k),
        causal=causal, dropout_p=0.0, seed=0, backend=backend,
    )  # fmt: skip
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return [out, *torch.autograd.grad((out * weights).sum(), wanted)]


@pytest.mark.parametrize(("has_bias", "causal"), [(True, False), (True, True), (False, False), (False, True)])
@pytest.mark.parametrize("lengths", [[5], [1, 1], [300, 1, 40, 41, 0, 7, 129, 128, 3], [0, 4, 0], [100, 0]])
def test_torch_equals_the_reference_in_output_and_gradients(lengths: list[int], has_bias: bool, causal: bool) -> None:
    got = output_and_grads("torch", lengths, lengths, has_bias, causal)
    want = output_and_grads("eager", lengths, lengths, has_bias, causal)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("lengths_q", "lengths_k"),
    [([3, 90, 1, 200], [150, 2, 1, 7]), ([4, 0, 9], [0, 5, 3]), ([2, 3], [0, 0]), ([0, 0], [1, 2])],
)
def test_cross_attention_equals_the_reference(lengths_q: list[int], lengths_k: list[int]) -> None:
    got = output_and_grads("torch", lengths_q, lengths_k, False, False)
    want = output_and_grads("eager", lengths_q, lengths_k, False, False)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "eager"])
def test_queries_without_keys_give_zeros(backend: str) -> None:
    out, *grads = output_and_grads(backend, [2, 3], [0, 4], False, False)
    assert out[:2].abs().max() == 0
    assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("backend", ["torch", "eager"])
def test_dropout_keeps_the_expectation_and_follows_the_seed(backend: str) -> None:
    lengths = [9, 30]
    q, k, v, bias = inputs(lengths, lengths)

    def run(p: float, seed: int) -> torch.Tensor:
        both = Layout.of(lengths, lengths)
        return attention(q, k, v, bias, both, causal=False, dropout_p=p, seed=seed, backend=backend).detach()

    assert torch.equal(run(0.3, 7), run(0.3, 7))
    assert not torch.equal(run(0.3, 7), run(0.3, 8))
    mean = torch.stack([run(0.3, seed) for seed in range(600)]).mean(0)
    assert (mean - run(0.0, 0)).abs().mean() < 0.03


@pytest.mark.parametrize("causal", [False, True])
def test_torch_drops_what_the_reference_drops_in_output_and_gradients(causal: bool) -> None:
    lengths = [5, 1, 90, 40, 41, 7]
    found = []
    for backend in ("torch", "eager"):
        leaves = inputs(lengths, lengths)
        where = Layout.of(lengths, lengths)
        out = attention(*leaves, where, causal=causal, dropout_p=0.3, seed=-7, backend=backend)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        found.append([out, *torch.autograd.grad((out * weights).sum(), leaves)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["torch", "eager"])
def test_what_is_dropped_of_a_sequence_does_not_depend_on_its_neighbours(backend: str) -> None:
    lengths = [5, 1, 30, 12]
    q, k, v, bias = inputs(lengths, lengths)
    options = {"causal": False, "dropout_p": 0.3, "seed": 9, "backend": backend}
    together = attention(q, k, v, bias, Layout.of(lengths, lengths), **options)
    alone, rows = Layout.of([30], [30]), slice(6, 36)
    alone.hashes = torch.from_numpy(token_hashes(np.array([2]), np.array([30])))
    torch.testing.assert_close(attention(q[rows], k[rows], v[rows], bias, alone, **options), together[rows])


@pytest.mark.parametrize(("has_bias", "causal"), [(True, True), (False, False)])
def test_torch_in_bf16_is_near_the_reference(has_bias: bool, causal: bool) -> None:
    lengths = [20, 33]
    q, k, v, bias = inputs(lengths, lengths, torch.bfloat16)
    bias = bias.float() if has_bias else None
    both = Layout.of(lengths, lengths)
    got, want = (
        attention(q, k, v, bias, both, causal=causal, dropout_p=0.0, seed=0, backend=b) for b in ("torch", "eager")
    )
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, want, atol=0.06, rtol=0.05)


def test_little_padding_is_computed_for_ragged_lengths() -> None:
    lengths = torch.randint(1, 200, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    buckets, *_ = bucketing(Layout.of(lengths, lengths), HEADS)
    computed = sum(b.size * b.max_q * b.max_k for b in buckets)
    assert sum(b.size for b in buckets) == len(lengths)
    assert computed < 1.3 * sum(n * n for n in lengths)


def test_auto_on_a_cpu_is_torch_and_says_why_not_flash_attn() -> None:
    backends = choose_backends("auto", CPU)
    assert backends == dict.fromkeys(KINDS, "torch")
    line = describe(backends, CPU)
    assert "\n" not in line
    assert "cross=torch (flash_attn: it needs CUDA, the device is cpu; triton: it needs CUDA" in line
    assert "encoder_self=torch (flash_attn: it has no relative-position bias; triton: it needs CUDA" in line


def test_auto_takes_flash_attn_only_without_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigchem.model.attention.installed", lambda name: True)
    dropping = GPU._replace(dropout=0.1)
    assert choose_backends("auto", GPU)["cross"] == "flash_attn"
    assert choose_backends("flash_attn", dropping)["cross"] == "flash_attn"
    chosen = choose_backends("auto", dropping)
    assert chosen["cross"] == "triton"
    assert "cross=triton (flash_attn: its dropout depends on the packing and the rank)" in describe(chosen, dropping)


@pytest.mark.parametrize("name", ["torch", "eager"])
def test_a_named_backend_serves_every_kind(name: str) -> None:
    assert choose_backends(name, CPU) == dict.fromkeys(KINDS, name)


def test_backends_that_cannot_serve_are_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="flash_attn cannot serve cross attention: it needs CUDA"):
        choose_backends("flash_attn", CPU)
    with pytest.raises(UserError, match="did you mean 'flash_attn'"):
        choose_backends("flash_atn", CPU)


@pytest.mark.parametrize(
    ("setting", "capability", "reason"),
    [
        (CPU, (9, 0), "it needs CUDA, the device is cpu"),
        (GPU._replace(dtype=torch.float32), (9, 0), "it needs fp16 or bf16, not float32"),
        (GPU._replace(dropout=0.1), (9, 0), "it has no dropout, and the probabilities' is 0.1"),
        (GPU._replace(head_dim=60), (9, 0), "it serves heads of 8, 16, ... 128 dimensions, not 60"),
        (GPU, (8, 0), "it needs compute capability 9.0 .* this is a card"),
        (GPU, (9, 0), r"it is not installed \(.*pip install .* 'flash-attn-4\[cu13\]>=4.0.0b36'\)"),
    ],
)
def test_flash4_says_why_it_cannot_serve(
    setting: Setting, capability: tuple[int, int], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "card")
    with pytest.raises(UserError, match=f"flash4 cannot serve encoder_self attention: {reason}"):
        choose_backends("flash4", setting)


@pytest.mark.parametrize("major", [9, 10])
def test_flash4_serves_all_attention_where_it_is_named_and_auto_never_takes_it(
    major: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bigchem.model.attention.installed", lambda name: name == "flash-attn-4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (major, 0))
    assert choose_backends("auto", GPU) == dict.fromkeys(KINDS, "triton")
    chosen = choose_backends("flash4", GPU)
    assert chosen == dict.fromkeys(KINDS, "flash4")
    assert "cross=flash4 (flash_attn: it is not installed" in describe(chosen, GPU)


def test_flash_attn_itself_refuses_what_it_cannot_do() -> None:
    q, k, v, _ = inputs([3], [3])
    with pytest.raises(UserError, match=r"needs CUDA|not installed"):
        attention(q, k, v, None, Layout.of([3], [3]), causal=False, dropout_p=0.0, seed=0, backend="flash_attn")
