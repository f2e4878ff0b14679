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
    """What becomes of a key. At DeepSpeed's own default it changes nothing, whatever its use."""

    USED = "used"  # DeepSpeed gets it
    IGNORED = "ignored"  # it does nothing here, or what bigchem does itself; DeepSpeed does not get it
    REFUSED = "refused"  # the run would fail, or be another than the file says


@dataclass(frozen=True)
class Key:
    """kind: of its values. default: DeepSpeed's. why: what to do instead, of an ignored or refused key. stages: of ZeRO
    at which it does anything. inside: of an object, its keys. auto: whether "auto" may stand for its default."""

    kind: Kind
    default: Any = None
    use: Use = Use.USED
    why: str = ""
    stages: frozenset[int] = ALL
    inside: Mapping[str, Key] | None = None
    auto: bool = True


def used(kind: Kind, default: Any, stages: frozenset[int] = ALL, *, auto: bool = True) -> Key:
    """A key that DeepSpeed gets."""
    return Key(kind, default, stages=stages, auto=auto)


def ignored(why: str, kind: Kind = anything, default: Any = None) -> Key:
    """A key that DeepSpeed does not get. why: what to use instead."""
    return Key(kind, default, Use.IGNORED, why)


def refused(why: str, kind: Kind = anything, default: Any = None, stages: frozenset[int] = ALL) -> Key:
    """A key that is refused. why: and what to do instead."""
    return Key(kind, default, Use.REFUSED, why, stages)


def block(inside: Mapping[str, Key], stages: frozenset[int] = ALL) -> Key:
    """An object with keys of its own."""
    return Key(anything, None, stages=stages, inside=inside)


REMOVED = "DeepSpeed 0.19 has removed it: remove it here"
