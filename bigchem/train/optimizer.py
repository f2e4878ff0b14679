"""The optimizer under the engine: which parameters decay, and how a step is left out.

ZeRO hands its pieces to this optimizer and copies the result back; a step that does nothing here leaves the weights,
the moments and their count as they were, at every stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from bigchem.config import OptimizerConfig


class Skippable:
    """Mixed in before an optimizer's class: while `skip` is set, `step` does nothing."""

    skip = False

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """The optimizer's own step, unless it is to be left out."""
        return None if self.skip else super().step(closure)  # type: ignore[misc,no-any-return]


class AdamW(Skippable, torch.optim.AdamW):  # type: ignore[misc]
    """torch's AdamW, whose steps can be left out."""


def build_optimizer(
    config: OptimizerConfig, model: torch.nn.Module, ds_config: dict[str, Any]
) -> torch.optim.Optimizer:
    """The optimizer that the configuration asks for; DeepSpeed's own for the CPU where the states are offloaded."""
    groups = parameter_groups(model, config.weight_decay)
    offload = ds_config.get("zero_optimization", {}).get("offload_optimizer", {}).get("device", "none")
    if offload != "none":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        class CPUAdam(Skippable, DeepSpeedCPUAdam):
            """DeepSpeed's AdamW for the CPU, whose steps can be left out."""

        optimizer: torch.optim.Optimizer = CPUAdam(groups, lr=config.lr, betas=config.betas, eps=config.eps)
        return optimizer
    fused = torch.cuda.is_available()
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def group_names(parameters: Iterable[tuple[str, int]]) -> tuple[list[str], list[str]]:
    """Names of the parameters, given as (name, ndim), with weight decay (matrices) and without (norms, embeddings)."""
    listed = list(parameters)
    plain = [n for n, ndim in listed if ndim != 2 or n == "shared.weight" or "relative_attention_bias" in n]
    return [n for n, _ in listed if n not in set(plain)], plain


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The optimizer's groups, in the order of group_names."""
    parameters = dict(model.named_parameters())
    decayed, plain = group_names((n, p.ndim) for n, p in parameters.items())
    return [
        {"params": [parameters[n] for n in decayed], "weight_decay": weight_decay},
        {"params": [parameters[n] for n in plain], "weight_decay": 0.0},
    ]
