"""This process's environment: its programs, and the device that it computes on, which is decided here alone.

`DS_ACCELERATOR` is DeepSpeed's variable. DeepSpeed and bigchem must agree, so it is set to what was decided.
"""

import os
import sys
import sysconfig
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING

from bigchem.base.errors import UserError

if TYPE_CHECKING:
    import torch

ACCELERATOR, VISIBLE = "DS_ACCELERATOR", "CUDA_VISIBLE_DEVICES"
ON_CPU = f"to compute on the CPU, set {ACCELERATOR}=cpu"


def before_torch(env: MutableMapping[str, str]) -> None:
    """What every process of bigchem sets before it imports torch."""
    own_programs_first()
    let_segments_grow(env)
    yield_idle_threads(env)


def own_programs_first() -> None:
    """Puts this environment's programs (ninja, torchrun) first on PATH, as activation would.

    So `.venv/bin/bigchem` works from any shell, in jobs and under torchrun. Outside of virtual environments PATH is
    unchanged if it has Python's folder already: a compiler that the user has put first stays first.
    """
    own = sysconfig.get_path("scripts")
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if own in folders and sys.prefix == sys.base_prefix:
        return
    os.environ["PATH"] = os.pathsep.join([own, *(folder for folder in folders if folder != own)])


def yield_idle_threads(env: MutableMapping[str, str]) -> None:
    """Before torch is imported: threads that wait for the next product sleep instead of spinning.

    With two threads on two cores that others use too, spinning halved the speed of products; alone on a machine both
    are as fast (docs/decisions.md, consolidation). Whoever has chosen a policy keeps it.
    """
    env.setdefault("OMP_WAIT_POLICY", "passive")


ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"
"""torch's options for its allocator on GPUs, by the old name and the new one."""


def let_segments_grow(env: MutableMapping[str, str]) -> None:
    """Before torch first allocates: packed micro-batches differ in every step, and segments that grow fit them where
    fixed ones fragment. Whoever has set options of the allocator keeps them."""
    if not any(name in env for name in ALLOCATOR):
        env[ALLOCATOR[0]] = "expandable_segments:True"


def use_tf32(device: "torch.device", wanted: bool) -> None:
    """Whether products of fp32 matrices on a GPU are computed in TF32, with 10 bits of mantissa instead of 23."""
    if device.type == "cuda":
        import torch

        torch.set_float32_matmul_precision("high" if wanted else "highest")


def decide_device(env: Mapping[str, str], visible: int, local_rank: int = 0) -> str:
    """The device of a process: "cpu" or "cuda:N". Pure.

    visible: GPUs that torch sees. local_rank: number among the node's processes; a tool is the only one. A process that
    sees one GPU takes it: with srun's --gpu-bind or --gpus-per-task each sees its own.
    UserError for an accelerator that bigchem does not support, for GPUs that were given but are not seen, and for more
    processes than GPUs.
    """
    wanted, given = env.get(ACCELERATOR, "").strip().lower(), env.get(VISIBLE, "").strip()
    if wanted not in ("", "cpu", "cuda"):
        raise UserError(f"{wanted} is not supported: bigchem computes on cuda or cpu", ACCELERATOR, ON_CPU)
    if wanted == "cpu":
        return "cpu"
    if visible == 0:
        named = given not in ("", "-1", "NoDevFiles")
        if wanted == "cuda" or named:
            where = f"{ACCELERATOR}=cuda" if wanted else f"{VISIBLE}={given}"
            hint = (
                f"nvidia-smi shows whether the driver works, and torch.version.cuda what torch was built for; {ON_CPU}"
            )
            raise UserError("torch sees no GPU", where, hint)
        return "cpu"
    if visible == 1:
        return "cuda:0"
    if local_rank >= visible:
        raise UserError(
            f"local rank {local_rank} sees {visible} GPUs: there is one process per GPU",
            VISIBLE,
            "make tasks_per_node and gpus_per_node equal",
        )
    return f"cuda:{local_rank}"


def refuse_shared(gpus: Sequence[tuple[str, str]]) -> None:
    """UserError if two ranks have one GPU, which NCCL refuses in other words. gpus: (host, GPU's UUID) by rank; an
    empty UUID: on the CPU. Pure."""
    owners: dict[tuple[str, str], int] = {}
    for rank, gpu in enumerate(gpus):
        if gpu[1] and (first := owners.setdefault(gpu, rank)) != rank:
            raise UserError(
                f"ranks {first} and {rank} share a GPU of {gpu[0]} ({gpu[1]}): there is one process per GPU",
                VISIBLE,
                f"start fewer processes, or more GPUs; {ON_CPU}",
            )
    if len({bool(uuid) for _, uuid in gpus}) > 1:
        on_cpu = next(rank for rank, (_, uuid) in enumerate(gpus) if not uuid)
        raise UserError(f"rank {on_cpu} has no GPU, others have", gpus[on_cpu][0], "use nodes of one kind")


def visible_gpus() -> int:
    """GPUs that this process may use: none if DS_ACCELERATOR is cpu."""
    seen = _seen()
    return seen if decide_device(os.environ, seen) != "cpu" else 0


def take_device(local_rank: int = 0) -> "torch.device":
    """This process's device, made the current one and DeepSpeed's. UserError: see `decide_device`."""
    import torch

    taken = torch.device(decide_device(os.environ, _seen(), local_rank))
    os.environ[ACCELERATOR] = taken.type
    if taken.type == "cuda":
        torch.cuda.set_device(taken)
    return taken


def device() -> "torch.device":
    """The device that this process has taken; else that of a tool, which has a machine to itself."""
    import torch

    return torch.device("cuda", torch.cuda.current_device()) if visible_gpus() else torch.device("cpu")


def _seen() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
