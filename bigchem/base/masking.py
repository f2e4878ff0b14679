"""Masks secrets in what a run records of its environment, by name and shape. docs/security.md lists them."""

import re
from collections.abc import Sequence
from typing import Any

MASK = "***"
_NAME = (
    r"(?:[A-Za-z0-9]+[_-])*(?:TOKEN|SECRET|SECRET[_-]?KEY|API[_-]?KEY|ACCESS[_-]?KEY|ACCESS[_-]?KEY[_-]ID|PRIVATE[_-]?KEY"
    r"|RENDEZVOUS[_-]KEY|CREDENTIALS?|\w*PASSWORD\w*|\w*PASSWD\w*|PASSPHRASE)"
)
"""HF_TOKEN, WANDB_API_KEY, AWS_SECRET_ACCESS_KEY, DB_PASSWORD, --api-key; not `micro_tokens`."""
_SECRET_NAME = re.compile(rf"-*{_NAME}", re.IGNORECASE)
_SHAPES = re.compile(
    r"hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|\b(?:AKIA|ASIA)[A-Z0-9]{12,}"
    r"|xox[abeprs]-[\w-]{10,}|\bsk-[\w-]{20,}|\bAIza[\w-]{30,}|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"
    r"|(?<=hooks\.slack\.com/services/)[\w/-]+"
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_URL = re.compile(r"(?<=://)([^/\s:@'\"]*):[^/\s@'\"]+(?=@)")
_BEARER = re.compile(r"(?i)(\bauthorization['\"]?\s*[:=]\s*['\"]?(?:bearer|basic)\s+)[^\s'\"]+")
_VARIABLE = re.compile(r"(?<![A-Za-z0-9_])((?-i:[A-Z][A-Z0-9_]*)(?<!_)['\"]?\s*[:=]\s*)(['\"]?)([^\s'\"]+)")
_QUOTED = re.compile(rf"(?i)(?<![A-Za-z0-9])({_NAME}['\"]?\s*[:=]\s*)(['\"])([^\s'\"]{{8,}})\2")
_OPTION = re.compile(rf"(?i)(?<!\S)(--{_NAME}[= ])([^\s=]\S*)")


def is_secret_name(name: str) -> bool:
    """Whether a variable or option of this name holds a secret."""
    return _SECRET_NAME.fullmatch(name) is not None


def mask(text: str) -> str:
    """A text with its secrets masked: assignments to secret names, tokens by shape, private keys, and passwords in
    URLs."""
    text = _PRIVATE_KEY.sub(MASK, text)
    text = _SHAPES.sub(MASK, text)
    text = _URL.sub(rf"\1:{MASK}", text)
    text = _BEARER.sub(rf"\1{MASK}", text)
    text = _OPTION.sub(rf"\1{MASK}", text)
    text = _QUOTED.sub(rf"\1\2{MASK}\2", text)
    return _VARIABLE.sub(_assigned, text)


def mask_words(words: Sequence[str]) -> list[str]:
    """A command line's words, masked, including the word after a secret option."""
    before = ["", *words]
    follows = [option.startswith("-") and "=" not in option and is_secret_name(option) for option in before]
    return [MASK if hidden else mask(word) for word, hidden in zip(words, follows, strict=False)]


def mask_values(value: Any, name: str = "") -> Any:
    """Plain data, masked: its texts, and everything under a secret name."""
    if isinstance(value, dict):
        return {key: mask_values(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask_values(item, name) for item in value]
    if isinstance(value, str) and value:
        return MASK if is_secret_name(name) else mask(value)
    return value


def _assigned(found: re.Match[str]) -> str:
    name, quote, _ = found.groups()
    return f"{name}{quote}{MASK}" if is_secret_name(name.rstrip(":= \t'\"")) else found.group()
