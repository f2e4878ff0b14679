"""Strict types for values in DeepSpeed's and Hugging Face's JSON. Pure.

Their own classes convert: "true" becomes true, 1 becomes true, "3" becomes 3. Here a value has its JSON type, except
that whole numbers may be written as 2e8.
"""

import math
from collections.abc import Callable
from typing import Any

from bigchem.base.json_file import kind_of, shown

Kind = Callable[[Any], Any]
"""From a JSON value to its meaning; WrongError with a reason if it is of another type."""

MAX_INTEGER = 2**63 - 1
MAX_NUMBER = 1e100


class WrongError(ValueError):
    """A value of a wrong type. The message says what is expected."""


def boolean(value: Any) -> bool:
    """true or false."""
    if isinstance(value, bool):
        return value
    raise WrongError("should be true or false" + (", without quotes" if value in ("true", "false") else ""))


def whole(minimum: int = 0, maximum: int = MAX_INTEGER) -> Kind:
    """A whole number in a range; 2e8 is one."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            hint = ", without quotes" if isinstance(value, str) and _is_number(value) else f", not {kind_of(value)}"
            raise WrongError(f"should be a whole number{hint}")
        if isinstance(value, float) and not value.is_integer():  # infinity is not one either
            near = f"; write {int(value)}" if math.isfinite(value) and value >= minimum else ""
            raise WrongError(f"should be a whole number{near}")
        if not minimum <= value <= maximum:
            raise _outside(f"{minimum:,}", f"{maximum:,}", maximum != MAX_INTEGER, value > minimum)
        return int(value)

    return check


def number(minimum: float = 0.0, maximum: float = math.inf) -> Kind:
    """A finite number in a range."""

    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise WrongError(f"should be a number, not {kind_of(value)}")
        if not minimum <= value <= min(maximum, MAX_NUMBER):
            raise _outside(f"{minimum:g}", f"{min(maximum, MAX_NUMBER):g}", maximum < math.inf, value > minimum)
        return value

    return check


def one_of(*names: str) -> Kind:
    """One of the given words, case-sensitive."""

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
    """Any value, for keys that are refused or ignored."""
    return value


def _outside(minimum: str, maximum: str, bounded: bool, above: bool) -> WrongError:
    """The error for a number outside a range. bounded: by more than the type."""
    if bounded:
        return WrongError(f"should be from {minimum} to {maximum}")
    return WrongError(f"should be at most {maximum}" if above else f"should be at least {minimum}")


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False
