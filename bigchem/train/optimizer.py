"""The optimizer under the engine: which parameters decay, how fast each learns, how a step is left out, a running mean.

ZeRO hands its pieces to this optimizer, one flat piece of each group a rank, and copies the result back. So whatever is
kept an element in the optimizer's own state (moments, the running mean) is sharded, offloaded and saved with it; and a
step that does nothing here leaves the weights, the moments and their count as they were, at every stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from bigchem.config import OptimizerConfig
from bigchem.ds_config import offloads
from bigchem.model.parameters import group_names

SMALLEST_SCALE = 1e-3
"""Least RMS of a parameter that its learning rate is scaled by, so that one that starts at zero can move."""


class Steps:
    """Mixed in before an optimizer's class: steps that can be left out, and a running mean of the weights.

    skip: while it is set, `step` does nothing. ema: decay of the mean, in each parameter's state as "ema", which starts
    as the weights before the first step; 0: none.
    """

    skip = False
    ema = 0.0
    param_groups: list[dict[str, Any]]
    state: dict[torch.Tensor, dict[str, Any]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """The optimizer's own step, unless it is to be left out; then the mean moves."""
        if self.skip:
            return None
        groups = self.param_groups
        # ZeRO-3 gives one group its piece at a time: with a group a parameter, passing over the empty ones each time
        # would take longer than the step.
        self.param_groups = [group for group in groups if group["params"]]
        pieces = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        fresh = {p: p.detach().clone() for p in pieces if self.ema and "ema" not in self.state[p]}
        try:
            loss: float | None = super().step(closure)  # type: ignore[misc]
        finally:
            self.param_groups = groups
        for p, mean in fresh.items():
            self.state[p]["ema"] = mean  # not before: a state that holds anything passes for one that is set up
        for p in pieces:
            if self.ema:
                self.state[p]["ema"].lerp_(p, 1.0 - self.ema)
            else:
                self.state[p].pop("ema", None)  # of a run that kept it before: it would no longer be the mean
        return loss


class AdamW(Steps, torch.optim.AdamW):  # type: ignore[misc]
    """torch's AdamW."""


class Adafactor(Steps, torch.optim.Adafactor):  # type: ignore[misc]
    """torch's Adafactor: second moments of a matrix by rows and columns, a step clipped to an RMS of 1 and scaled by
    max(1e-3, RMS of the parameter), with min(lr, 1 / sqrt(step)) as the rate. It needs whole matrices."""


def build_optimizer(
    config: OptimizerConfig, model: torch.nn.Module, ds_config: dict[str, Any]
) -> torch.optim.Optimizer:
    """The optimizer that the configuration asks for; DeepSpeed's AdamW for the CPU where the states are offloaded."""
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
    """The optimizer's groups, in the order of group_names: two, or with adamw_rms one a parameter."""
    parameters = dict(model.named_parameters())
    named = group_names((n, p.ndim) for n, p in parameters.items())
    groups = []
    for names, decay in zip(named, (config.weight_decay, 0.0), strict=True):
        each = [[n] for n in names] if config.kind == "adamw_rms" else [names]
        groups += [{"params": [parameters[n] for n in part], "weight_decay": decay} for part in each if part]
    return groups


class Rates:
    """What a step's learning rate is in each of the optimizer's groups.

    The same in all; or with adamw_rms `lr * max(SMALLEST_SCALE, RMS(parameter))` (Adafactor's parameter scaling in
    AdamW, as in nanoT5, arXiv 2309.02373), where the decay stays `lr * weight_decay`. Made before DeepSpeed puts its
    pieces in place of the parameters. zero_stage: 3 has each parameter in pieces.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: OptimizerConfig, zero_stage: int) -> None:
        self._scaled, self._pieces = config.kind == "adamw_rms", zero_stage == 3
        self._parameters = [group["params"][0] for group in optimizer.param_groups]
        self._decay = [group["weight_decay"] for group in optimizer.param_groups]

    def set(self, groups: Sequence[dict[str, Any]], lr: float) -> None:
        """Writes the rates of a step into the groups. With adamw_rms at stage 3 a collective: every rank calls it."""
        scales = self.scales() if self._scaled else [1.0] * len(groups)
        for group, scale, decay in zip(groups, scales, self._decay, strict=True):
            group["lr"] = lr * scale
            group["weight_decay"] = decay / scale

    @torch.no_grad()
    def scales(self) -> list[float]:
        """max(SMALLEST_SCALE, RMS) of every parameter; they wait for the device once."""
        held = [_own_piece(p) for p in self._parameters] if self._pieces else self._parameters
        squares = torch.stack(torch._foreach_norm(held, 2, dtype=torch.float32)).square()
        if self._pieces:
            squares = squares.to(self._parameters[0].device)
            dist.all_reduce(squares)
        sizes = [getattr(p, "ds_numel", p.numel()) for p in self._parameters]
        found = zip(squares.tolist(), sizes, strict=True)
        return [max(SMALLEST_SCALE, (square / size) ** 0.5) for square, size in found]


def _own_piece(parameter: Any) -> torch.Tensor:
    """This rank's elements of a parameter that ZeRO-3 has cut, without the last rank's padding."""
    piece: torch.Tensor = parameter.ds_tensor
    left = parameter.ds_numel - dist.get_rank() * piece.numel()
    return piece.view(-1)[: max(0, min(piece.numel(), left))]
