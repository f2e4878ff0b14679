"""Checks a DeepSpeed file against the table of keys. Pure."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from bigchem.base.json_file import shown
from bigchem.base.json_kinds import WrongError
from bigchem.ds_config.findings import Findings
from bigchem.ds_config.key import Key, Use
from bigchem.ds_config.keys import ALIASES, REMARKS, TOP


def checked(table: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """The part of the table that DeepSpeed gets: canonical names, whole numbers as int, no "auto", no ignored keys."""
    zero = table.get("zero_optimization")
    stage = zero.get("stage", 0) if isinstance(zero, dict) else 0
    findings.stage = int(stage) if type(stage) in (int, float) and stage in (0, 1, 2, 3) else None
    return _section({k: v for k, v in table.items() if not k.startswith(REMARKS)}, TOP, "", findings)


def _section(table: Mapping[str, Any], keys: Mapping[str, Key], prefix: str, findings: Findings) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for written, value in table.items():
        name = ALIASES.get(prefix, {}).get(written, written)
        if name != written and name in table:
            findings.mistake(prefix + written, f"is another name of {name}, which is also given")
        elif name not in keys:
            findings.mistake(prefix + written, _unknown(written, prefix, keys))
        else:
            _value(name, value, keys[name], prefix, findings, out)
    return out


def _value(name: str, value: Any, key: Key, prefix: str, findings: Findings, out: dict[str, Any]) -> None:
    full = prefix + name
    if value == "auto" and key.auto:
        findings.autos.append((full, _default(key)))
    elif value is None and key.default is None:
        return
    elif key.inside is not None:
        if isinstance(value, dict):
            out[name] = _section(value, key.inside, f"{full}.", findings)
        else:
            example = ': write {"stage": 1}' if name == "zero_optimization" and value is True else ""
            findings.mistake(full, f"should be an object, not {shown(value)}{example}")
    elif key.use is Use.USED:
        _used(name, value, key, prefix, findings, out)
    elif not _harmless(value, key):
        _not_used(full, value, key, findings)


def _used(name: str, value: Any, key: Key, prefix: str, findings: Findings, out: dict[str, Any]) -> None:
    try:
        out[name] = key.kind(value)
    except WrongError as error:
        findings.mistake(prefix + name, f"{shown(value)} {error}")
        return
    if findings.stage is not None and findings.stage not in key.stages:
        del out[name]
        if not _same(value, key.default):
            findings.unused.append(prefix + name)


def _not_used(full: str, value: Any, key: Key, findings: Findings) -> None:
    try:
        key.kind(value)
    except WrongError as error:
        findings.mistake(full, f"{shown(value)} {error}")
        return
    if key.use is Use.IGNORED:
        findings.ignored.append((full, key.why))
    else:
        findings.mistake(full, key.why if isinstance(value, dict) else f"{shown(value)}: {key.why}")


def _harmless(value: Any, key: Key) -> bool:
    """Whether the value changes nothing: DeepSpeed's default, or an object that enables nothing."""
    if isinstance(value, dict):
        return value.get("enabled", None) is False or all(inner is False or inner is None for inner in value.values())
    return _same(value, key.default)


def _same(value: Any, default: Any) -> bool:
    """Equality that tells true from 1."""
    return isinstance(value, bool) == isinstance(default, bool) and value == default


def _default(key: Key) -> str:
    if key.use is not Use.USED:
        return f"nothing: {key.why}"
    if key.inside is not None or key.default is None:
        return "DeepSpeed's choice"
    value = key.default
    return f"{value:,} (DeepSpeed's default)" if type(value) is int else f"{shown(value)} (DeepSpeed's default)"


def _unknown(name: str, prefix: str, keys: Mapping[str, Key]) -> str:
    elsewhere = {section: known[name] for section, known in _sections(TOP, "") if section != prefix and name in known}
    if elsewhere:
        refusals = {key.why for key in elsewhere.values() if key.use is Use.REFUSED}
        if len(refusals) == len(elsewhere) == 1:
            return refusals.pop()
        places = " or ".join(section.rstrip(".") or "the top of the file" for section in sorted(elsewhere))
        return f"is misplaced: it belongs in {places}"
    aliases = ALIASES.get(prefix, {})
    close = get_close_matches(name, [*keys, *aliases], n=1, cutoff=0.6)
    if not close:
        return "unknown key"
    meant = keys[aliases.get(close[0], close[0])]
    if meant.use is Use.REFUSED:
        return f"unknown key; '{close[0]}' is refused too: {meant.why}"
    return f"unknown key; did you mean '{close[0]}'?"


def _sections(keys: Mapping[str, Key], prefix: str) -> Iterator[tuple[str, Mapping[str, Key]]]:
    yield prefix, keys
    for name, key in keys.items():
        if key.inside is not None:
            yield from _sections(key.inside, f"{prefix}{name}.")
