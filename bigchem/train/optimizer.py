"""The optimizer under the engine: weight decay and learning rate by parameter, skipped steps, a running mean.

ZeRO passes this optimizer one flat piece of each group per rank and copies the result back. Per-element state here
(moments, the running mean) is therefore sharded, offloaded and saved by ZeRO. A step skipped here leaves weights,
moments and their step count unchanged at every stage.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist

from bigchem.base import environment
from bigchem.config import OptimizerConfig
from bigchem.ds_config import offloads
from bigchem.model.parameters import group_names
from bigchem.train.checkpoint.slots import Slot

SMALLEST_SCALE = 1e-3
"""Minimum RMS by which a parameter's learning rate is scaled, so that one that starts at zero can move."""


Layout = Mapping[torch.Tensor, Sequence[tuple[str | None, int]]]
"""Each flat tensor that the optimizer steps: the parameters in it, with their elements, in order. None: padding."""


class Steps:
    """Mixin for an optimizer's class: skippable steps, rates by parameter, and a running mean of the weights.

    skip: while set, `step` does nothing. ema: decay of the mean, 0 for none. The mean is each parameter's state "ema",
    and starts as the weights before the first step. layout, scales: where each parameter is, and the factor of its
    rate; the decay stays unscaled. Empty: all rates are the groups'.
    """

    skip = False
    ema = 0.0
    layout: Layout = MappingProxyType({})
    scales: Mapping[str, float] = MappingProxyType({})
    param_groups: list[dict[str, Any]]
    state: dict[torch.Tensor, dict[str, Any]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """The optimizer's own step and the mean's update, unless `skip` is set."""
        if self.skip:
            return None
        pieces = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        fresh = {p: p.detach().clone() for p in pieces if self.ema and "ema" not in self.state[p]}
        with self._in_units_of_scale(pieces):
            loss: float | None = super().step(closure)  # type: ignore[misc]
        for p, mean in fresh.items():
            self.state[p]["ema"] = mean  # last: torch takes a non-empty state as initialized
        for p in pieces:
            if self.ema:
                self.state[p]["ema"].lerp_(p, 1.0 - self.ema)
            else:
                self.state[p].pop("ema", None)  # from before `ema` was switched off; it would be stale
        return loss

    @contextmanager
    def _in_units_of_scale(self, pieces: Iterable[torch.Tensor]) -> Iterator[None]:
        """Divides each parameter by its scale, and multiplies it afterwards. An update of AdamW does not depend on the
        weights, so it is scaled with them; decay is proportional to them, so it is not."""
        views: list[torch.Tensor] = []
        scales: list[float] = []
        for p in pieces:
            if layout := self.layout.get(p):  # none in a piece that is all padding
                views += p.view(-1).split([size for _, size in layout])
                scales += [1.0 if name is None else self.scales[name] for name, _ in layout]
        if views:
            torch._foreach_div_(views, scales)
        yield
        if views:
            torch._foreach_mul_(views, scales)


def _without_dynamo(torchs: Any) -> Any:
    """An optimizer of torch whose methods do not import torch._dynamo: 2,000 modules, 3 s of processor time in every
    rank (torch 2.13). They do so only to hide from torch.compile, which compiles no optimizer here. `Steps.step` has
    no gradients either."""
    names = ("step", "add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: getattr(torchs, name) for name in names}
    return type(
        torchs.__name__, (torchs,), {n: getattr(method, "__wrapped__", method) for n, method in methods.items()}
    )


class AdamW(Steps, _without_dynamo(torch.optim.AdamW)):  # type: ignore[misc]
    """torch's AdamW."""


class Adafactor(Steps, _without_dynamo(torch.optim.Adafactor)):  # type: ignore[misc]
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
        fused = environment.device().type == "cuda"
        optimizer = AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)
    optimizer.ema = config.ema
    built: torch.optim.Optimizer = optimizer
    return built


def parameter_groups(model: torch.nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """The optimizer's groups, in the order of group_names: with and without decay."""
    parameters = dict(model.named_parameters())
    # What zero.Init has partitioned is empty, and has its shape beside it.
    named = group_names((n, len(getattr(p, "ds_shape", p.shape))) for n, p in parameters.items())
    return [
        {"params": [parameters[n] for n in names], "weight_decay": decay}
        for names, decay in zip(named, (config.weight_decay, 0.0), strict=True)
        if names
    ]


def layout_of(slots: Iterable[Slot]) -> Layout:
    """The layout of the tensors that the slots lie in."""
    found: dict[torch.Tensor, list[tuple[str | None, int]]] = {}
    ends: dict[torch.Tensor, int] = {}
    for slot in sorted(slots, key=lambda slot: slot.offset):
        padding = slot.offset - ends.get(slot.flat, 0)
        found.setdefault(slot.flat, []).extend([(None, padding), (slot.name, slot.numel)])
        ends[slot.flat] = slot.offset + slot.numel
    for flat, parts in found.items():
        parts.append((None, flat.numel() - ends[flat]))
    return {flat: [part for part in parts if part[1]] for flat, parts in found.items()}


class Scales:
    """Factor of each parameter's rate in adamw_rms, by name: max(SMALLEST_SCALE, RMS) of the weights that the model
    computes with. Adafactor's parameter scaling in AdamW, as in nanoT5 (arXiv 2309.02373).

    `start` computes them without waiting for the device; `read` waits. Weights must not change in between. sharded:
    ZeRO-3 cuts each parameter into pieces.
    """

    def __init__(self, model: torch.nn.Module, *, sharded: bool) -> None:
        self._parameters, self._sharded = dict(model.named_parameters()), sharded
        self._squares: torch.Tensor | None = None
        self._arrived: torch.cuda.Event | None = None

    @torch.no_grad()
    def start(self) -> None:
        """Computes the sums of squares. Collective if sharded."""
        parameters: list[torch.Tensor] = list(self._parameters.values())
        pieces = [_own_piece(p) for p in parameters] if self._sharded else parameters
        squares = torch.stack(torch._foreach_norm(pieces, 2, dtype=torch.float32)).square()
        if self._sharded:
            squares = squares.to(parameters[0].device)
            dist.all_reduce(squares)
        self._squares = squares.to("cpu", non_blocking=True)  # into pinned memory
        if squares.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> dict[str, float]:
        """The scales when `start` was called last; calls it if those have been read already."""
        if self._squares is None:
            self.start()
        if self._arrived is not None:
            self._arrived.synchronize()
        found: list[float] = self._squares.tolist()  # type: ignore[union-attr]
        self._squares = None
        sizes = (getattr(p, "ds_numel", p.numel()) for p in self._parameters.values())
        rms = ((square / size) ** 0.5 for square, size in zip(found, sizes, strict=True))
        return {name: max(SMALLEST_SCALE, size) for name, size in zip(self._parameters, rms, strict=True)}


def _own_piece(parameter: Any) -> torch.Tensor:
    """This rank's elements of a parameter sharded by ZeRO-3, without the last rank's padding."""
    piece: torch.Tensor = parameter.ds_tensor
    remaining = parameter.ds_numel - dist.get_rank() * piece.numel()
    return piece.view(-1)[: max(0, min(piece.numel(), remaining))]
