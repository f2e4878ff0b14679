"""Compares a DeepSpeed file's table with the table of keys. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from bigchem.base.json_config import shown
from bigchem.base.json_kinds import WrongError
from bigchem.ds_config.findings import Findings
from bigchem.ds_config.key import Key, Use
from bigchem.ds_config.keys import ALIASES, REMARKS, TOP


def checked(table: Mapping[str, Any], found: Findings) -> dict[str, Any]:
    """What DeepSpeed may get of the table: keys by one name, whole numbers whole, no "auto", nothing ignored."""
    zero = table.get("zero_optimization")
    stage = zero.get("stage", 0) if isinstance(zero, dict) else 0
    found.stage = int(stage) if type(stage) in (int, float) and stage in (0, 1, 2, 3) else None
    return _section({k: v for k, v in table.items() if not k.startswith(REMARKS)}, TOP, "", found)


def _section(table: Mapping[str, Any], keys: Mapping[str, Key], prefix: str, found: Findings) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for written, value in table.items():
        name = ALIASES.get(prefix, {}).get(written, written)
        if name != written and name in table:
            found.mistake(prefix + written, f"is another name of {name}, which is there as well")
        elif name not in keys:
            found.mistake(prefix + written, _unknown(written, prefix, keys))
        else:
            _value(name, value, keys[name], prefix, found, out)
    return out


def _value(name: str, value: Any, key: Key, prefix: str, found: Findings, out: dict[str, Any]) -> None:
    full = prefix + name
    if value == "auto" and key.auto:
        found.autos.append((full, _default(key)))
    elif value is None and key.default is None:
        return
    elif key.inside is not None:
        if isinstance(value, dict):
            out[name] = _section(value, key.inside, f"{full}.", found)
        else:
            example = ': write {"stage": 1}' if name == "zero_optimization" and value is True else ""
            found.mistake(full, f"should be an object, not {shown(value)}{example}")
    elif key.use is Use.USED:
        _used(name, value, key, prefix, found, out)
    elif not _harmless(value, key):
        _not_used(full, value, key, found)


def _used(name: str, value: Any, key: Key, prefix: str, found: Findings, out: dict[str, Any]) -> None:
    try:
        out[name] = key.kind(value)
    except WrongError as error:
        found.mistake(prefix + name, f"{shown(value)} {error}")
        return
    if found.stage is not None and found.stage not in key.stages:
        del out[name]
        if not _same(value, key.default):
            found.unused.append(prefix + name)


def _not_used(full: str, value: Any, key: Key, found: Findings) -> None:
    try:
        key.kind(value)
    except WrongError as error:
        found.mistake(full, f"{shown(value)} {error}")
        return
    if key.use is Use.IGNORED:
        found.ignored.append((full, key.why))
    else:
        found.mistake(full, key.why if isinstance(value, dict) else f"{shown(value)}: {key.why}")


def _harmless(value: Any, key: Key) -> bool:
    """Whether DeepSpeed would do nothing by it: its default, or an object that turns nothing on."""
    if isinstance(value, dict):
        return value.get("enabled", None) is False or all(inner is False or inner is None for inner in value.values())
    return _same(value, key.default)


def _same(value: Any, default: Any) -> bool:
    """Equal, where true is not 1."""
    return isinstance(value, bool) == isinstance(default, bool) and value == default


def _default(key: Key) -> str:
    if key.use is not Use.USED:
        return f"nothing: {key.why}"
    if key.inside is not None or key.default is None:
        return "what DeepSpeed chooses"
    value = key.default
    return f"{value:,} (DeepSpeed's default)" if type(value) is int else f"{shown(value)} (DeepSpeed's default)"


def _unknown(name: str, prefix: str, keys: Mapping[str, Key]) -> str:
    elsewhere = sorted(section for section, known in _sections(TOP, "") if section != prefix and name in known)
    if elsewhere:
        places = " or ".join(section.rstrip(".") or "the top of the file" for section in elsewhere)
        return f"is out of place: it belongs in {places}"
    close = get_close_matches(name, [*keys, *ALIASES.get(prefix, {})], n=1, cutoff=0.6)
    return f"unknown key; did you mean '{close[0]}'?" if close else "unknown key"


def _sections(keys: Mapping[str, Key], prefix: str) -> Iterator[tuple[str, Mapping[str, Key]]]:
    yield prefix, keys
    for name, key in keys.items():
        if key.inside is not None:
            yield from _sections(key.inside, f"{prefix}{name}.")
