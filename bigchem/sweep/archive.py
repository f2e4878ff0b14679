"""An archive of a sweep: what is worth keeping of its finished runs, without weights, in one small file.

A .tar.xz of run folders (SWEEP/RUN/...), with each run's configuration, state, validation losses, results and
predictions. `sweep report` reads it; unpacked into the folder of runs, it tells `sweep submit` what is done.
"""

import io
import json
import lzma
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath

from bigchem.base import atomic, json_file, jsonl, toml
from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.launch.runs import history
from bigchem.launch.runs.status import RunStatus
from bigchem.run.log_files import has_diverged
from bigchem.sweep.scores.results import read_json

SUFFIX = ".tar.xz"
MAX_BYTES = 8 << 30
"""Unpacked size, at most: a small file may claim to hold any number of bytes."""
COPIED = ("state.json", "events.jsonl", "model.json", "tasks.json", "git.txt")
PATHS = {"data": ("path", "cache"), "checkpoint": ("copy_to",), "model": ("init_from",), "train": ("ds_config",)}
"""Fields of a run's configuration that its folder has as absolute paths; `runs` is another."""
OWN_PYTHON = re.compile(rb"[^\s\"']+/python[\d.]* -m pip")
"""In remedies of metrics that are n/a: the Python that evaluated."""
HINT = "give a file that `bigchem sweep archive` wrote"


def is_done(config: RunConfig, status: RunStatus) -> bool:
    """Whether a run has nothing left to do: evaluated, or, of one that is not to be evaluated, trained or diverged."""
    if status.active or config.evaluate.at_end:
        return not status.active and status.is_done(config.train.steps)
    return (status.state == "trained" and status.step >= config.train.steps) or has_diverged(config.run_dir)


def write(runs: Sequence[RunConfig], file: Path) -> None:
    """Packs the folders of these runs, which are done. The same runs give the same bytes.

    Paths are as in `runs`; nodes and job numbers are left out of history.jsonl, and of metrics.jsonl all rows but the
    last one and those with validation losses.
    """
    members = {f"{Path(run.runs).name}/{run.name}/{name}": held for run in runs for name, held in _content(run)}
    # By file name, so that what equals between runs, such as references, lies close together.
    order = sorted(members, key=lambda one: (PurePosixPath(one).name, one))
    with (
        atomic.replace_atomically(file) as out,
        lzma.open(out, "wb") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in order:
            entry = tarfile.TarInfo(name)
            entry.size = len(members[name])
            tar.addfile(entry, io.BytesIO(members[name]))


def _content(run: RunConfig) -> Iterator[tuple[str, bytes]]:
    folder = run.run_dir
    stored = toml.load(RunConfig, folder / "config.toml")
    config, moved = _as_given(stored, run)
    yield "config.toml", toml.dump(config).encode()
    attempts = [replace(row, job="", nodes="", failed_nodes="") for row in history.read(folder)]
    yield history.FILE, _lines(map(asdict, attempts))
    rows = jsonl.read(folder / "metrics.jsonl").rows
    yield "metrics.jsonl", _lines(row for row in rows if "valid_loss" in row or row is rows[-1])
    for name in COPIED:
        if (folder / name).is_file():
            yield name, _replaced((folder / name).read_bytes(), moved)
    if (file := folder / "results" / "results.json").is_file():
        yield "results/results.json", OWN_PYTHON.sub(b"python -m pip", _replaced(file.read_bytes(), moved))
        for task, path in read_json(file)[0].run.predictions.items():
            yield f"results/predictions/{task}.jsonl", Path(path).read_bytes()


def _as_given(stored: RunConfig, run: RunConfig) -> tuple[RunConfig, dict[bytes, bytes]]:
    """A run folder's configuration with the paths that the user gave, and what replaces each absolute path in its other
    files. For a model from the hub, model.json has a folder of the cache instead of the name."""
    sections: dict[str, object] = {"runs": run.runs}
    moved: dict[str | None, str | None] = {stored.runs: run.runs}
    for section, fields in PATHS.items():
        given = {field: getattr(getattr(run, section), field) for field in fields}
        before = getattr(stored, section)
        sections[section] = before.model_copy(update=given)
        moved |= {getattr(before, field): path for field, path in given.items()}
    if (file := run.run_dir / "model.json").is_file():
        moved |= {json_file.load_object(file).get("init_from"): run.model.init_from}
    changed = {old: new for old, new in moved.items() if old and new and Path(old).is_absolute() and old != new}
    longest_first = sorted(changed.items(), key=lambda item: -len(item[0]))
    return stored.model_copy(update=sections), {old.encode(): new.encode() for old, new in longest_first}


def _replaced(content: bytes, moved: Mapping[bytes, bytes]) -> bytes:
    for old, new in moved.items():
        content = content.replace(old, new)
    return content


def _lines(rows: Iterable[object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def check_name(file: Path) -> None:
    """UserError for a name by which an archive is not known as one."""
    if not file.name.endswith(SUFFIX):
        raise UserError(f"an archive's name ends with {SUFFIX}", str(file), f"--out {file.stem}{SUFFIX}")


@contextmanager
def unpacked(paths: Iterable[Path]) -> Iterator[dict[Path, Path]]:
    """The paths, with a temporary folder instead of each archive, and what each stands for. UserError for one that is
    damaged, or that would write outside of its folder."""
    with ExitStack() as folders:
        packed = {path: path.name.endswith(SUFFIX) and path.is_file() for path in paths}
        yield {_unpack(path, folders) if is_archive else path: path for path, is_archive in packed.items()}


def _unpack(file: Path, folders: ExitStack) -> Path:
    folder = Path(folders.enter_context(tempfile.TemporaryDirectory(prefix="bigchem-archive-")))
    left = MAX_BYTES
    try:
        with tarfile.open(file, "r:xz") as tar:
            for entry in tar:
                name = PurePosixPath(entry.name)
                content = tar.extractfile(entry) if entry.isreg() else None
                if content is None or name.is_absolute() or ".." in name.parts:
                    raise UserError(f"'{entry.name}' is not a file inside it", str(file), HINT)
                if (left := left - entry.size) < 0:
                    raise UserError(f"holds more than {MAX_BYTES >> 30} GiB", str(file), HINT)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content.read())
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise UserError(f"cannot be unpacked: {error}", str(file), HINT) from None
    return folder
