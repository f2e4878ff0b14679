"""Which weights a run began with: recorded before its first step, as the folder may hold another model later."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bigchem.base import atomic, json_file
from bigchem.base.json_file import RecordError
from bigchem.model.weights import hub

FILE = "base.json"
"""In a run folder with `model.init_from`."""


@dataclass(frozen=True)
class Source:
    """A source of training data. name: as the build's report has it. hub: its dataset's name there. license: as the
    recipe states it; None: nobody did."""

    name: str
    rows: int
    hub: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class Base:
    """A model that another began with.

    name: on the hub; or the run's or the folder's, never a path. revision: the hub's commit. step, tokens, data: of a
    bigchem run: its length so far and the fingerprint of its data. sources: of those data; None: unknown. base: what it
    began with itself.
    """

    name: str
    on_hub: bool = False
    revision: str | None = None
    step: int | None = None
    tokens: int | None = None
    data: str | None = None
    sources: list[Source] | None = None
    base: "Base | None" = None

    def chain(self) -> "Iterator[Base]":
        """This model, and those before it, newest first."""
        yield self
        if self.base is not None:
            yield from self.base.chain()


def record_base(run_dir: Path, base: Base) -> None:
    """Writes a run's base, unless an earlier attempt did."""
    if not (run_dir / FILE).exists():
        atomic.write_atomically(run_dir / FILE, json.dumps(asdict(base), indent=1))


def base_of_run(run_dir: Path, init_from: str | None) -> Base | None:
    """A run's base, None for random weights. Runs of earlier versions recorded none: then it is the name alone."""
    try:
        return json_file.as_kind(Base, json_file.load(run_dir / FILE), str(run_dir / FILE))
    except (OSError, RecordError):
        return None if init_from is None else named(init_from)


def named(init_from: str) -> Base:
    """What `model.init_from` says by itself."""
    is_path = hub.is_path(init_from)
    return Base(Path(init_from).name if is_path else init_from, on_hub=not is_path)
