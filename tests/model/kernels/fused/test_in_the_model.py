"""A whole model by the fused kernels, interpreted, against the same model by torch's operations."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_models import V1_0, V1_1, build, grads, pack, sequences

pytest.importorskip("triton")

from bigchem.model import functional
from bigchem.model.functional import Objective
from bigchem.model.kernels.fused import activation, add_norm, cross_entropy
from bigchem.model.presets import Shape

pytestmark = pytest.mark.heavy
FUSED = [module.__name__ for module in (activation, add_norm, cross_entropy)]
BATCH = pack(sequences([5, 3], 1), [torch.tensor([4, -100, 9, 1]), torch.tensor([7, 1])])


def computed(shape: Shape, *, checkpointed: bool = False, training: bool = True) -> tuple[torch.Tensor, dict]:
    model = build(shape, dropout=0.2, checkpoint_activations=checkpointed).train(training)
    model.objective = Objective(z_loss=1e-2, label_smoothing=0.1)
    loss = model(BATCH, seed=5)
    return torch.cat([loss.total[None], loss.per_task]), grads(model, loss)


def launches(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Lets the kernels run on the CPU, interpreted. Returns the set of those modules that launch one from now on."""
    launched: set[str] = set()
    for module in (activation, add_norm, cross_entropy):
        name, entered = module.__name__, module.on_device

        def on_device(x: torch.Tensor, name: str = name, entered: Any = entered) -> Any:
            launched.add(name)
            return entered(x)

        monkeypatch.setattr(module, "on_device", on_device)
    monkeypatch.setattr(functional, "KERNEL_DEVICES", {"cpu"})
    return launched


@pytest.mark.parametrize(
    ("shape", "checkpointed"),
    [
        pytest.param(V1_0, False, id="v1.0"),
        pytest.param(V1_1, False, id="v1.1"),
        pytest.param(V1_0, True, id="v1.0 checkpointed"),
        pytest.param(replace(V1_1, activation="silu"), False, id="UL2", marks=pytest.mark.thorough),
    ],
)
def test_loss_gradients_and_dropout_are_those_of_torchs_operations(
    shape: Shape, checkpointed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masks of dropout are the same, or nothing would be equal."""
    shape = replace(shape, num_layers=1, num_decoder_layers=1)
    expected, wanted = computed(shape)
    launched = launches(monkeypatch)
    found, got = computed(shape, checkpointed=checkpointed)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert launched == set(FUSED)
    for name, grad in got.items():
        assert (grad - wanted[name]).abs().max() <= 2e-6 * wanted[name].abs().max(), name


def test_evaluation_drops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = replace(V1_1, num_layers=1, num_decoder_layers=1)
    expected = computed(shape, training=False)[0]
    monkeypatch.setattr(functional, "KERNEL_DEVICES", {"cpu"})
    torch.testing.assert_close(computed(shape, training=False)[0], expected, rtol=1e-6, atol=1e-6)
