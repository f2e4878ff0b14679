"""The benchmarks of the model run on a CPU with small sizes: equality first, then time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigchem.bench.model import ceilings
from bigchem.bench.model.ceilings import sdpa, varlen
from bigchem.bench.model.mix import LONGEST, lengths_of_tasks, mixed
from bigchem.bench.model.peers import (
    PEERS,
    Case,
    backward,
    exact,
    packed_inputs,
    padded,
    transformers_eager,
    transformers_sdpa,
)
from bigchem.bench.model.pieces import Sizes, pieces
from bigchem.bench.model.pieces import errors as pieces_errors
from bigchem.bench.model.train_step import FIXED, GROUPED, NAMES, OURS, turns_of
from bigchem.model import functional

ROOT = Path(__file__).parents[2]


def report(program: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bigchem", "bench", program, "--json", "--device", "cpu", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_training_steps_are_equal_before_they_are_timed() -> None:
    arguments = (
        "--preset",
        "sweep-0.2m",
        "--dropout",
        "0",
        "--dropout",
        "0.1",
        "--tokens",
        "600",
        "--turns",
        "2",
        "--processor-time",
    )
    found = report("train-step", *arguments)
    assert found["skipped"] == []
    assert [row["who"] for row in found["rows"]] == 2 * list(NAMES)
    padding = {row["who"]: row["padding %"] for row in found["rows"]}
    assert padding[OURS] == 0 < padding[GROUPED] < padding[FIXED]
    assert all(row["real tokens/s"] > 0 and row["turns"] == 2 and row["peak GiB"] is None for row in found["rows"])
    figures = {figure["name"]: figure for figure in found["figures"]}
    errors = [figure for name, figure in figures.items() if "largest error" in name]
    assert len(errors) == 1
    assert errors[0]["holds"], errors
    ratios = [figure for figure in figures.values() if figure["unit"] == "x real tokens/s"]
    assert [figure["asked"] for figure in ratios] == [1.5, 5, 1.5, 5]


@pytest.mark.slow
def test_attention_is_right_before_it_is_timed() -> None:
    found = report("attention", "--tokens", "200", "--heads", "2", "--length", "40", "--no-pieces")
    errors = [figure for figure in found["figures"] if figure["unit"] == "relative"]
    assert {figure["name"].split(", ")[0] for figure in errors} == {"encoder_self", "decoder_self", "cross"}
    assert all(figure["holds"] for figure in errors), errors
    assert {row["lengths"] for row in found["rows"]} == {"real mix", "40 each"}
    assert len(found["rows"]) == 2 * 3 * 2 * 3  # lengths, kinds, dropout, who
    assert all(row["ms"] > 0 for row in found["rows"])
    skipped = "\n".join(found["skipped"])
    for reason in (
        "no GPU here",
        "FAT5: it needs CUDA",
        "FlexAttention: it has no backward pass on a CPU",
        "SDPA flash",
    ):
        assert reason in skipped


@pytest.mark.slow  # a minute, in the interpreter
def test_tiles_are_tried_one_kernel_at_a_time_also_in_the_interpreter() -> None:
    found = report("tiles", "--length", "3", "--tokens", "3", "--heads", "1", "--head-dim", "16")
    assert {row["kernel"] for row in found["rows"]} == {
        "forward",
        "grad_queries",
        "grad_keys",
        "grad_bias",
        "grad_short",
    }
    assert all(row["ms"] > 0 for row in found["rows"])
    assert not found["skipped"]


def test_the_rows_of_a_turn_are_the_same_for_ours_and_the_peer() -> None:
    turns = turns_of(mixed(lengths_of_tasks(None), 50 * 2048, seed=0), 2048, turns=3, per_turn=2)
    for ours, theirs, fixed in zip(turns[OURS], turns[GROUPED], turns[FIXED], strict=True):
        rows = [sorted(tuple(row) for batch in turn.micro for row in batch.tolist()) for turn in (ours, theirs, fixed)]
        assert rows[0] == rows[1]
        assert set(rows[2]) <= set(rows[0])
        assert ours.tokens == ours.padded == sum(map(sum, rows[0]))
        assert fixed.padded == 2 * LONGEST * len(rows[0])
        assert fixed.part == len(rows[2]) / len(rows[0])


@pytest.mark.parametrize("kind", ["encoder_self", "decoder_self", "cross"])
def test_peers_compute_the_same_attention(kind: str) -> None:
    """On one sequence, where padded and packed are the same."""
    case = Case(np.array([[7, 7]]), kind, 2, 8, 0.0, torch.device("cpu"), torch.float64)
    q, k, v, bias, grad = packed_inputs(case)
    by_distance = (torch.arange(7) - torch.arange(7)[:, None]) + case.reach
    mask = torch.zeros(7, 7, dtype=torch.float64)
    if case.causal:
        mask = mask.masked_fill(torch.ones(7, 7, dtype=torch.bool).triu(1), -math.inf)
    for formula in (transformers_eager, transformers_sdpa):
        matrix = None if bias is None else bias.double()[:, by_distance][None]
        want = exact(case, q, k, v, bias)
        got = formula(*(x.transpose(0, 1)[None] for x in (q, k, v)), matrix, mask[None, None], 0.0)[0].transpose(0, 1)
        # transformers' softmax is fp32 whatever its inputs are
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)
        for a, b in zip(*(backward(x, (q, k, v, bias), grad) for x in (got, want)), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        padded(case, formula)()


def test_fat5_gets_the_bias_as_a_matrix_and_t5s_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is a stand-in by the formula: FAT5's needs a GPU, and a checkout."""

    def flash_attention_v2_bias(q: Any, k: Any, v: Any, bias: Any, causal: bool, sm_scale: float) -> torch.Tensor:
        assert (q.shape, bias.shape, causal, sm_scale) == ((3, 2, 5, 8), (1, 2, 5, 5), False, 1.0)
        return ((q @ k.mT + bias).softmax(-1) @ v).to(q.dtype)

    stand_in = types.ModuleType("src.model.ops.flash_attention_v2_bias")
    monkeypatch.setattr(stand_in, "flash_attention_v2_bias", flash_attention_v2_bias, raising=False)
    for name in ("src", "src.model", "src.model.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    case = Case(np.full((3, 2), 5), "encoder_self", 2, 8, 0.0, torch.device("cpu"), torch.float32)
    grads = PEERS["FAT5"](case)()
    assert [tuple(grad.shape) for grad in grads] == [(3, 2, 5, 8)] * 3 + [(1, 2, 5, 5)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["encoder_self", "decoder_self"])
def test_a_ceiling_is_the_same_attention_without_the_bias(kind: str) -> None:
    """With eager in place of FlashAttention's varlen kernels, and the formula in place of SDPA's."""
    case = Case(np.array([[4, 4], [4, 4]]), kind, 2, 8, 0.0, torch.device("cpu"), torch.float32)
    grads = {}
    for name, make in {"packed": partial(varlen, backend="eager"), "padded": partial(sdpa, kernel="MATH")}.items():
        torch.manual_seed(0)
        grads[name] = make(case)()
    assert [tuple(grad.shape) for grad in grads["packed"]] == [(8, 2, 8)] * 3  # type: ignore[attr-defined]
    assert [tuple(grad.shape) for grad in grads["padded"]] == [(2, 2, 4, 8)] * 3  # type: ignore[attr-defined]
    assert all(ceilings.refusal(name, case) == "timed on CUDA only" for name in ceilings.CEILINGS)


@pytest.mark.parametrize("devices", [{"cpu"}, {"cuda"}], ids=["kernels", "torch"])
def test_our_pieces_are_exact(devices: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64, with the same dropout; the kernels are interpreted."""
    monkeypatch.setattr(functional, "KERNEL_DEVICES", devices)
    found = list(pieces_errors(Sizes(12, 24, 40, 50), torch.device("cpu"), torch.float32))
    assert len(found) == 4
    assert all(figure.holds for figure in found), found


def test_every_piece_that_needs_no_compiler_runs() -> None:
    names = []
    for piece, who, prepare in pieces(Sizes(12, 8, 16, 50), torch.device("cpu"), torch.float32):
        if "compiled" not in who and who != "Liger's":
            prepare()()
            names.append(piece)
    assert set(names) == {"residual, dropout, norm", "gated GELU, dropout", "ReLU, dropout", "cross-entropy"}
