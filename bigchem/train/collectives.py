"""What rank 0 does for all: everybody gets its result, or its error. No rank is left waiting for one that failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from bigchem.base.errors import UserError, full_disk

T = TypeVar("T")


def on_rank0(function: Callable[[], T]) -> T:
    """Runs `function` on rank 0; its result on every rank. A UserError or OSError there is a UserError everywhere; any
    other error is a RuntimeError with its text on the other ranks."""
    told: list[tuple[T | None, tuple[str, str | None, str | None] | None, str | None]] = [(None, None, None)]
    unexpected: Exception | None = None
    if dist.get_rank() == 0:
        try:
            told = [(function(), None, None)]
        except UserError as error:
            told = [(None, (error.what, error.where, error.hint), None)]
        except OSError as error:
            found = full_disk(error) or UserError(f"{type(error).__name__}: {error.strerror or error}", error.filename)
            told = [(None, (found.what, found.where, found.hint), None)]
        except Exception as error:
            unexpected = error
            told = [(None, None, f"rank 0: {type(error).__name__}: {error}")]
    dist.broadcast_object_list(told, src=0)
    result, failed, broken = told[0]
    if failed is not None:
        raise UserError(*failed)
    if broken is not None:
        raise unexpected or RuntimeError(broken)
    return result  # type: ignore[return-value]


def ranks(count: int) -> str:
    """A number of ranks, in words."""
    return f"{count} rank" if count == 1 else f"{count} ranks"


def say(text: str) -> None:
    """One line, from rank 0."""
    if dist.get_rank() == 0:
        print(text, flush=True)


def gathered(value: T) -> list[T]:
    """Every rank's value, in rank order, on every rank."""
    found: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found  # type: ignore[return-value]
