"""What a value of somebody else's JSON, DeepSpeed's or Hugging Face's, may be. Pure.

Their own classes convert: "true" becomes true, 1 becomes true, "3" becomes 3. Here a value is what JSON says, but for
whole numbers, which may be written as 2e8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bigchem.base.json_config import kind_of, shown

Kind = Callable[[Any], Any]
"""From a value as JSON has it to the value that it means; WrongError with a reason if it is none."""

MOST = 2**63 - 1
MOST_NUMBER = 1e100


class WrongError(ValueError):
    """A value is not of its kind. The message says what would be."""


def boolean(value: Any) -> bool:
    """true or false."""
    if isinstance(value, bool):
        return value
    raise WrongError("should be true or false" + (", without quotes" if value in ("true", "false") else ""))


def whole(least: int = 0, most: int = MOST) -> Kind:
    """A whole number in a range; 2e8 is one."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            hint = ", without quotes" if isinstance(value, str) and _is_number(value) else f", not {kind_of(value)}"
            raise WrongError(f"should be a whole number{hint}")
        if isinstance(value, float) and not value.is_integer():  # nor is infinity
            near = f"; write {int(value)}" if math.isfinite(value) and value >= least else ""
            raise WrongError(f"should be a whole number{near}")
        if not least <= value <= most:
            raise WrongError(
                f"should be from {least:,} to {most:,}" if most != MOST else f"should be at least {least:,}"
            )
        return int(value)

    return check


def number(least: float = 0.0, most: float = math.inf) -> Kind:
    """A finite number in a range."""

    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise WrongError(f"should be a number, not {kind_of(value)}")
        if not least <= value <= min(most, MOST_NUMBER):
            raise WrongError(
                f"should be from {least:g} to {most:g}" if most < math.inf else f"should be at least {least:g}"
            )
        return value

    return check


def one_of(*names: str) -> Kind:
    """One of some words, as they are written here."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value in names:
            return value
        raise WrongError(f"should be {' or '.join(shown(name) for name in names)}")

    return check


def text(value: Any) -> str:
    """A string that is not empty."""
    if isinstance(value, str) and value.strip():
        return value
    raise WrongError("should be a string" if not isinstance(value, str) else "is empty")


def anything(value: Any) -> Any:
    """Whatever it is: of keys that are refused or ignored."""
    return value


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False
