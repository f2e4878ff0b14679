"""The optimizer under the engine: weight decay and learning rate by parameter, skipped steps, a running mean.

ZeRO passes this optimizer one flat piece of each group per rank and copies the result back. Per-element state here
(moments, the running mean) is therefore sharded, offloaded and saved by ZeRO. A step skipped here leaves weights,
moments and their step count unchanged at every stage.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from bigchem.config import OptimizerConfig
from bigchem.ds_config import offloads
from bigchem.model.parameters import group_names

SMALLEST_SCALE = 1e-3
"""Minimum RMS by which a parameter's learning rate is scaled, so that one that starts at zero can move."""


class Steps:
    """Mixin for an optimizer's class: skippable steps, and a running mean of the weights.

    skip: while set, `step` does nothing. ema: decay of the mean, 0 for none. The mean is each parameter's state "ema",
    and starts as the weights before the first step.
    """

    skip = False
    ema = 0.0
    param_groups: list[dict[str, Any]]
    state: dict[torch.Tensor, dict[str, Any]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """The optimizer's own step and the mean's update, unless `skip` is set."""
        if self.skip:
            return None
        groups = self.param_groups
        # ZeRO-3 fills one group at a time. With one group per parameter, passing over the empty ones each time takes
        # longer than the step.
        self.param_groups = [group for group in groups if group["params"]]
        pieces = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        fresh = {p: p.detach().clone() for p in pieces if self.ema and "ema" not in self.state[p]}
        try:
            loss: float | None = super().step(closure)  # type: ignore[misc]
        finally:
            self.param_groups = groups
        for p, mean in fresh.items():
            self.state[p]["ema"] = mean  # last: torch takes a non-empty state as initialized
        for p in pieces:
            if self.ema:
                self.state[p]["ema"].lerp_(p, 1.0 - self.ema)
            else:
                self.state[p].pop("ema", None)  # from before `ema` was switched off; it would be stale
        return loss


class AdamW(Steps, torch.optim.AdamW):  # type: ignore[misc]
    """torch's AdamW."""


class Adafactor(Steps, torch.optim.Adafactor):  # type: ignore[misc]
    """torch's Adafactor: second moments by rows and columns, steps clipped to an RMS of 1 and scaled by max(1e-3, the
    parameter's RMS), rate min(lr, 1 / sqrt(step)). It needs whole matrices."""


def build_optimizer(
    config: OptimizerConfig, model: torch.nn.Module, ds_config: dict[str, Any]
) -> torch.optim.Optimizer:
    """The configured optimizer; DeepSpeed's AdamW for the CPU where the states are offloaded."""
    groups = parameter_groups(model, config)
    optimizer: Any
    if config.kind == "adafactor":
        optimizer = Adafactor(groups, lr=config.lr)
    elif offloads(ds_config):
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        class CPUAdam(Steps, DeepSpeedCPUAdam):
            """DeepSpeed's AdamW for the CPU."""

        optimizer = CPUAdam(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    else:
        fused = torch.cuda.is_available()
        optimizer = AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)
    optimizer.ema = config.ema
    built: torch.optim.Optimizer = optimizer
    return built


def parameter_groups(model: torch.nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """The optimizer's groups, in the order of group_names: two, or with adamw_rms one per parameter."""
    parameters = dict(model.named_parameters())
    named = group_names((n, p.ndim) for n, p in parameters.items())
    groups = []
    for names, decay in zip(named, (config.weight_decay, 0.0), strict=True):
        each = [[n] for n in names] if config.kind == "adamw_rms" else [names]
        groups += [{"params": [parameters[n] for n in part], "weight_decay": decay} for part in each if part]
    return groups


class Rates:
    """Learning rates of the optimizer's groups.

    All the same, or with adamw_rms `lr * max(SMALLEST_SCALE, RMS(parameter))` (Adafactor's parameter scaling in AdamW,
    as in nanoT5, arXiv 2309.02373), with the decay still `lr * weight_decay`. Construct it before DeepSpeed puts its
    flat pieces in place of the parameters. zero_stage: at 3 each parameter is sharded.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: OptimizerConfig, zero_stage: int) -> None:
        self._scaled, self._pieces = config.kind == "adamw_rms", zero_stage == 3
        self._parameters = [group["params"][0] for group in optimizer.param_groups]
        self._decay = [group["weight_decay"] for group in optimizer.param_groups]

    def set(self, groups: Sequence[dict[str, Any]], lr: float) -> None:
        """Sets the groups' rates for a step. Collective with adamw_rms at stage 3."""
        scales = self.scales() if self._scaled else [1.0] * len(groups)
        for group, scale, decay in zip(groups, scales, self._decay, strict=True):
            group["lr"] = lr * scale
            group["weight_decay"] = decay / scale

    @torch.no_grad()
    def scales(self) -> list[float]:
        """max(SMALLEST_SCALE, RMS) of every parameter, with a single device synchronization."""
        pieces = [_own_piece(p) for p in self._parameters] if self._pieces else self._parameters
        squares = torch.stack(torch._foreach_norm(pieces, 2, dtype=torch.float32)).square()
        if self._pieces:
            squares = squares.to(self._parameters[0].device)
            dist.all_reduce(squares)
        sizes = [getattr(p, "ds_numel", p.numel()) for p in self._parameters]
        found = zip(squares.tolist(), sizes, strict=True)
        return [max(SMALLEST_SCALE, (square / size) ** 0.5) for square, size in found]


def _own_piece(parameter: Any) -> torch.Tensor:
    """This rank's elements of a parameter sharded by ZeRO-3, without the last rank's padding."""
    piece: torch.Tensor = parameter.ds_tensor
    remaining = parameter.ds_numel - dist.get_rank() * piece.numel()
    return piece.view(-1)[: max(0, min(piece.numel(), remaining))]
