"""The proof holds one module at a time and gives from_pretrained's loss."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import transformers_loss
from small_models import SOURCE_LENGTHS, TARGET_LENGTHS, V1_0, V1_1, build, sequences

from bigchem.base.errors import UserError
from bigchem.export import proof
from bigchem.export.proof import check_loss, folder_loss, probe_loss
from bigchem.model.presets import Shape, to_hf_config
from bigchem.model.weights.pretrained import save_pretrained
from bigchem.train.checkpoint.store import Manifest

PROBE: dict[str, Any] = {
    "sources": [ids.tolist() for ids in sequences(SOURCE_LENGTHS, 1)],
    "targets": [ids.tolist() for ids in sequences(TARGET_LENGTHS, 2)],
    "loss": 2.0,
}
MANIFEST = Manifest(1, 1, 1, 1, 2, "fp32", "adamw", "", {}, PROBE)


@pytest.mark.parametrize("shape", [V1_0, V1_1], ids=["v1.0", "v1.1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_loss_is_from_pretraineds(
    shape: Shape, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pretrained(build(shape).to(dtype), tmp_path / "model")
    whole = transformers_loss(tmp_path / "model", PROBE["sources"], PROBE["targets"])
    assert folder_loss(tmp_path / "model", MANIFEST) == pytest.approx(whole, rel=1e-6)  # in several batches
    monkeypatch.setattr(proof, "TOKENS", 10**6)
    assert folder_loss(tmp_path / "model", MANIFEST) == pytest.approx(whole, rel=1e-12)  # in one: to the bit


def test_weights_are_asked_for_when_they_run_and_not_kept() -> None:
    weights, loaded, peak = build(V1_0).state_dict(), 0, 0

    def forget() -> None:
        nonlocal loaded
        loaded -= 1

    def read(name: str) -> torch.Tensor:
        nonlocal loaded, peak
        array = weights[name].numpy().copy()
        weakref.finalize(array, forget)  # the tensor keeps it alive
        loaded += 1
        peak = max(peak, loaded)
        return torch.from_numpy(array)

    probe_loss(to_hf_config(V1_0, 0.0), read, weights.keys(), PROBE)
    assert (loaded, peak) == (0, 1)


@pytest.mark.parametrize(("lacking", "extra"), [("decoder.final_layer_norm.weight", ""), ("", "x.weight")])
def test_other_parameters_than_the_models_are_refused(lacking: str, extra: str) -> None:
    names = (dict(build(V1_1).state_dict()).keys() - {lacking}) | ({extra} - {""})
    with pytest.raises(UserError, match=f"do not have the same parameters: {lacking or extra}"):
        probe_loss(to_hf_config(V1_1, 0.0), {}.__getitem__, names, PROBE)


@pytest.mark.parametrize("loss", [2.01, 1.99, float("nan"), float("inf")])
def test_another_loss_than_the_engines_fails(loss: float) -> None:
    with pytest.raises(UserError, match=r"the engine recorded 2\.000000"):
        check_loss(loss, MANIFEST, Path("x"))


def test_what_was_computed_in_bf16_or_rounded_to_it_may_differ_by_more() -> None:
    check_loss(2.01, replace(MANIFEST, precision="bf16"), Path("x"))
    check_loss(2.01, MANIFEST, Path("x"), rounded=True)
    check_loss(2.0001, MANIFEST, Path("x"))
