"""Findings in a DeepSpeed file: mistakes, reported in one message, and values without effect. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bigchem.base.errors import UserError

MAX_LINES = 40
NEXT = "fix the file: ds_configs/README.md says what it may contain"


@dataclass
class Findings:
    """Keys with their section, and a remark on each. autos: "auto" values and what they become. ignored: not passed to
    DeepSpeed. unused: keys without effect at the file's ZeRO stage."""

    mistakes: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)
    autos: list[tuple[str, str]] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    stage: int | None = None

    def mistake(self, key: str, what: str) -> None:
        """Adds a mistake."""
        self.mistakes.append((_short(key), what))

    def refuse(self, where: str) -> None:
        """UserError with all mistakes and ignored keys, if there is any mistake."""
        if not self.mistakes:
            return
        lines = [f"{key}: {what}" for key, what in self.mistakes]
        ignored = self._ignored()
        if len(lines) == 1 and not ignored:
            raise UserError(lines[0], where, NEXT)
        count = f"{len(lines)} mistakes" if len(lines) > 1 else "a mistake"
        more = [f"... and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
        raise UserError("\n  ".join([count, *lines[:MAX_LINES], *more, *ignored[:MAX_LINES]]), where, NEXT)

    def notes(self) -> tuple[str, ...]:
        """Lines on values that are changed or ignored, without being mistakes."""
        return (*(f"auto: {key} becomes {what}" for key, what in self.autos), *self._ignored())

    def _ignored(self) -> Sequence[str]:
        lines = [f"ignored: {key}: {what}" for key, what in self.ignored]
        if self.unused:
            lines.append(f"without effect at ZeRO-{self.stage}: {', '.join(self.unused)}")
        return lines


def _short(key: str) -> str:
    key = "".join(c if c.isprintable() else "?" for c in key)
    return key if len(key) <= 80 else key[:77] + "..."
