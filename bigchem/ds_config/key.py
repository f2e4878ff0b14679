"""What bigchem does with a key of a DeepSpeed file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bigchem.base.json_kinds import Kind, anything

ALL = frozenset({0, 1, 2, 3})
SHARDED, FLAT, WHOLE = frozenset({1, 2, 3}), frozenset({1, 2}), frozenset({3})


class Use(Enum):
    """What happens to a key. DeepSpeed's own default is always accepted."""

    USED = "used"  # passed to DeepSpeed
    IGNORED = "ignored"  # not passed: without effect here, or bigchem does it itself
    REFUSED = "refused"  # the run would fail, or differ from what the file says


@dataclass(frozen=True)
class Key:
    """kind: type of its values. default: DeepSpeed's. why: for an ignored or refused key, what to use instead. stages:
    ZeRO stages at which it has an effect. inside: keys of an object. auto: whether "auto" may stand for the default."""

    kind: Kind
    default: Any = None
    use: Use = Use.USED
    why: str = ""
    stages: frozenset[int] = ALL
    inside: Mapping[str, Key] | None = None
    auto: bool = True


def used(kind: Kind, default: Any, stages: frozenset[int] = ALL, *, auto: bool = True) -> Key:
    """A key that is passed to DeepSpeed."""
    return Key(kind, default, stages=stages, auto=auto)


def ignored(why: str, kind: Kind = anything, default: Any = None) -> Key:
    """A key that is not passed to DeepSpeed. why: what to use instead."""
    return Key(kind, default, Use.IGNORED, why)


def refused(why: str, kind: Kind = anything, default: Any = None, stages: frozenset[int] = ALL) -> Key:
    """A key that is refused. why: the reason, and what to use instead."""
    return Key(kind, default, Use.REFUSED, why, stages)


def block(inside: Mapping[str, Key], stages: frozenset[int] = ALL) -> Key:
    """An object with its own keys."""
    return Key(anything, None, stages=stages, inside=inside)


REMOVED = "DeepSpeed 0.19 has removed it: remove it here"
