"""Work that rank 0 does for all ranks: each gets its result or its error, so no rank waits for one that failed."""

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from bigchem.base.errors import UserError, full_disk

T = TypeVar("T")


def on_rank0(function: Callable[[], T]) -> T:
    """Runs `function` on rank 0 and returns its result on every rank. A UserError or OSError there is a UserError
    everywhere; any other error is a RuntimeError with its text on the other ranks."""
    outcome: list[tuple[T | None, tuple[str, str | None, str | None] | None, str | None]] = [(None, None, None)]
    unexpected: Exception | None = None
    if dist.get_rank() == 0:
        try:
            outcome = [(function(), None, None)]
        except UserError as error:
            outcome = [(None, (error.what, error.where, error.hint), None)]
        except OSError as error:
            found = full_disk(error) or UserError(f"{type(error).__name__}: {error.strerror or error}", error.filename)
            outcome = [(None, (found.what, found.where, found.hint), None)]
        except Exception as error:
            unexpected = error
            outcome = [(None, None, f"rank 0: {type(error).__name__}: {error}")]
    dist.broadcast_object_list(outcome, src=0)
    result, failed, broken = outcome[0]
    if failed is not None:
        raise UserError(*failed)
    if broken is not None:
        raise unexpected or RuntimeError(broken)
    return result  # type: ignore[return-value]


def say(text: str) -> None:
    """Prints one line, on rank 0 only."""
    if dist.get_rank() == 0:
        print(text, flush=True)


def gathered(value: T) -> list[T]:
    """Every rank's value, in rank order, on every rank."""
    found: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found  # type: ignore[return-value]
