"""Compiled blocks: they compute the same, and are compiled only once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from small_models import V1_0, V1_1, build, grads, pack, sequences
from torch import Tensor
from torch._dynamo.utils import counters

pytest.importorskip("triton")

from bigchem.model import attention
from bigchem.model.layout import Layout
from bigchem.model.packed_batch import PackedBatch
from bigchem.model.presets import Shape


@torch.library.custom_op("bigchem_test::attend", mutates_args=())
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    cu: Sequence[Tensor],
    longest: Sequence[int],
    p: float,
    seed: int,
) -> Tensor:
    """Attends to nothing; has a kernel's arguments, and checks that they belong to one batch."""
    if list(longest) != [int(c.diff().max()) for c in cu] or (len(q), len(k)) != tuple(int(c[-1]) for c in cu):
        raise ValueError("the layout is another batch's")
    return q * (1 + p + longest[0] / 1000 + seed / 2**33)


@attend.register_fake
def _(q: Tensor, *_: object) -> Tensor:
    return torch.empty_like(q)


def _setup(ctx: object, inputs: tuple, output: Tensor) -> None:
    _, k, v, bias, _, longest, p, seed = inputs
    ctx.save_for_backward(k, v, bias)
    ctx.factor = 1 + p + longest[0] / 1000 + seed / 2**33


def _backward(ctx: object, grad: Tensor) -> tuple:
    unused = [None if x is None else torch.zeros_like(x) for x in ctx.saved_tensors]
    return grad * ctx.factor, *unused, [None, None], None, None, None


attend.register_autograd(_backward, setup_context=_setup)


def _operator(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, layout: Layout, *, causal: bool, dropout_p: float, seed: int
) -> Tensor:
    cu = [layout.cu_seqlens_q, layout.cu_seqlens_k]
    return attend(q, k, v, bias, cu, [layout.max_q, layout.max_k], dropout_p, seed)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(attention.BACKENDS, "operator", attention.Backend(_operator, lambda *_: None))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def ragged(count: int) -> list[PackedBatch]:
    random = np.random.default_rng(0)
    batches = []
    for i in range(count):
        examples = random.integers(2, 20)
        lengths = random.integers(1, 60, (2, examples))
        batches.append(pack(sequences(lengths[0].tolist(), i), sequences(lengths[1].tolist(), 100 + i)))
    return batches


NOTHING_TO_DO = pack([torch.zeros(1, dtype=torch.int64)], [torch.full((1,), -100)])
"""What a rank without examples has."""
ONE = pack(sequences([5], 1), sequences([9], 2))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("shape", "backend"),
    [
        pytest.param(V1_0, "torch", id="torch v1.0"),
        pytest.param(V1_1, "operator", id="operator v1.1"),
    ],
)
def test_compiled_blocks_compute_the_same_and_are_not_compiled_again(shape: Shape, backend: str) -> None:
    plain, compiled = (build(shape, backend, dropout=0.2) for _ in range(2))
    compiled.compile_blocks()
    first, *batches = ragged(11)
    compiled(first).total.backward()
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch in [*batches, NOTHING_TO_DO, ONE]:
            loss, expected = compiled(batch, len(batch.task_ids)), plain(batch, len(batch.task_ids))
            torch.testing.assert_close(loss.total, expected.total, rtol=1e-6, atol=1e-6)
            wanted = grads(plain, expected)
            for name, grad in grads(compiled, loss).items():
                assert (grad - wanted[name]).abs().max() <= 1e-5 * wanted[name].abs().max(), name
        compiled.eval()(first)
    if backend == "operator":  # nothing breaks these graphs
        assert counters["stats"]["unique_graphs"] == 2
        assert not counters["graph_break"]


@pytest.mark.slow
def test_the_triton_kernels_stay_in_the_graph_and_are_not_compiled_again() -> None:
    plain, compiled = build(V1_0, "triton", dropout=0.2), build(V1_0, "triton", dropout=0.2)
    compiled.compile_blocks()
    compiled(pack(sequences([5, 9, 3], 1), sequences([2, 4, 1], 2))).total.backward()
    with torch.compiler.set_stance("fail_on_recompile"):
        for lengths in ([9, 2], [1, 4, 1, 3]):  # few: the kernels are interpreted
            batch = pack(sequences(lengths, 1), sequences(lengths[::-1], 2))
            losses = [model(batch, seed=3) for model in (plain, compiled)]
            torch.testing.assert_close(losses[1].total, losses[0].total, rtol=1e-6, atol=1e-6)
            expected = grads(plain, losses[0])
            for name, grad in grads(compiled, losses[1]).items():
                assert (grad - expected[name]).abs().max() <= 1e-5 * expected[name].abs().max(), name
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]


@pytest.mark.thorough
def test_compiled_blocks_with_dropout_are_finite_and_checkpointing_changes_nothing() -> None:
    batch = ragged(1)[0]
    found = []
    for checkpointed in (False, True):
        model = build(V1_0, dropout=0.2, checkpoint_activations=checkpointed)
        model.compile_blocks()
        loss = model(batch, seed=5)
        found.append(grads(model, loss))
        assert model(batch, seed=6).total != loss.total
    for name, grad in found[0].items():
        assert grad.isfinite().all()
        torch.testing.assert_close(found[1][name], grad, msg=name)


def test_a_model_that_is_not_compiled_needs_no_dynamo() -> None:
    """Which takes longer to import than all of bigchem: `predict` and `serve` do without."""
    code = "import sys, bigchem.model.t5; print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
