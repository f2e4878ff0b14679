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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath

from bigchem.base import atomic, jsonl, toml
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

    Paths in config.toml are as in `runs`; nodes and job numbers are left out of history.jsonl, and of metrics.jsonl all
    rows but the last one and those with validation losses.
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
    data = stored.data.model_copy(update={"path": run.data.path, "cache": run.data.cache})
    yield "config.toml", toml.dump(stored.model_copy(update={"runs": run.runs, "data": data})).encode()
    attempts = [replace(row, job="", nodes="", failed_nodes="") for row in history.read(folder)]
    yield history.FILE, _lines(map(asdict, attempts))
    rows = jsonl.read(folder / "metrics.jsonl").rows
    yield "metrics.jsonl", _lines(row for row in rows if "valid_loss" in row or row is rows[-1])
    for name in COPIED:
        if (folder / name).is_file():
            yield name, (folder / name).read_bytes()
    if (file := folder / "results" / "results.json").is_file():
        yield "results/results.json", OWN_PYTHON.sub(b"python -m pip", file.read_bytes())
        for task, path in read_json(file)[0].run.predictions.items():
            yield f"results/predictions/{task}.jsonl", Path(path).read_bytes()


def _lines(rows: Iterable[object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@contextmanager
def unpacked(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """The paths, with a temporary folder instead of each archive. UserError for one that is damaged, or that would
    write outside of its folder."""
    with ExitStack() as folders:
        yield [_unpack(path, folders) if path.name.endswith(SUFFIX) and path.is_file() else path for path in paths]


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
