"""Where a build may write, and publications that are interrupted between any two steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigchem.base.errors import UserError
from bigchem.base.progress import Progress
from bigchem.data.build import work_folder
from bigchem.data.build.pipeline import build
from bigchem.data.build.recipe import BuildConfig
from bigchem.data.sources.base import SourceConfig
from bigchem.data.text.tokenizer import Tokenizer

QUIET = Progress(quiet=True)


def recipe(seed: int, **fields: Any) -> BuildConfig:
    return BuildConfig(sources=(SourceConfig(format="synthetic", split="train", rows=40, seed=seed),), **fields)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Two finished builds, by seed."""
    folder = tmp_path_factory.mktemp("published")
    for seed in (1, 2):
        build(recipe(seed), folder / str(seed), QUIET, workers=1)
    return {seed: folder / str(seed) for seed in (1, 2)}


class KilledError(BaseException):
    """Simulates a SIGKILL: nothing catches it, and nothing runs after it."""


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends before its step-th rename, removal of a tree or of a file in work_folder.py."""
    calls = iter(range(1000))

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == step:
                raise KilledError
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(work_folder.shutil, "rmtree", counted(shutil.rmtree))
    monkeypatch.setattr(work_folder.Path, "replace", counted(Path.replace))
    monkeypatch.setattr(work_folder.Path, "unlink", counted(Path.unlink))


def grown(out: Path, data: Path, config: BuildConfig) -> Path:
    """A work folder of `out` that lacks only its publication."""
    from bigchem.data.build.recipe import recipe_hash

    with work_folder.work_folder(out, recipe_hash(config), QUIET) as work:
        shutil.copytree(data, work / "data")
        (work / "parsed").mkdir()
    return work


@pytest.mark.parametrize("step", range(7))
def test_a_publication_over_other_data_killed_before_any_step_is_finished_by_the_next_build(
    published: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    out = tmp_path / "data"
    shutil.copytree(published[1], out)
    work = grown(out, published[2], recipe(2))
    with monkeypatch.context() as patched:
        killed_at(step, patched)
        try:
            work_folder.publish(work, out)
        except KilledError:
            pass
        else:
            assert step >= 5
    build(recipe(2), out, QUIET, workers=1, overwrite=not out.exists() or files_of(out) == files_of(published[1]))
    assert files_of(out) == files_of(published[2])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("step", range(6))
def test_another_recipe_never_takes_over_what_a_kill_left_of_one(
    published: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Recipe 1 is complete but unpublished; recipe 2 is killed while it removes that; then 1 is repeated."""
    out = tmp_path / "data"
    grown(out, published[1], recipe(1))
    with monkeypatch.context() as patched:
        killed_at(step, patched)
        try:
            with work_folder.work_folder(out, "2", QUIET):
                pass
        except KilledError:
            pass
    build(recipe(1), out, QUIET, workers=1)
    assert files_of(out) == files_of(published[1])


def test_a_changed_vocabulary_is_another_recipe(published: dict[int, Path], tmp_path: Path) -> None:
    vocabulary = tmp_path / "t5"
    pieces = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], *([f"{c}", -3.0] for c in "▁abcdefghijklmnopqrstuvwxyz")]
    Tokenizer.train(["abc"], 300).save(vocabulary)
    table = json.loads((vocabulary / "tokenizer.json").read_text())
    table["model"]["vocab"] = pieces
    table["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap()}
    (vocabulary / "tokenizer.json").write_text(json.dumps(table))
    config = recipe(1, tokenizer={"t5": str(vocabulary)}, max_lossy=1.0)
    build(config, tmp_path / "data", QUIET, workers=1)
    build(config, tmp_path / "data", QUIET, workers=1)
    table["model"]["vocab"][5][1] = -4.0
    (vocabulary / "tokenizer.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match="another recipe"):
        build(config, tmp_path / "data", QUIET, workers=1)


def charsmap() -> str:
    from base64 import b64encode

    from bigchem.data.text.escapes import charsmap

    return b64encode(charsmap({"\u212b": "A"})).decode()


def test_a_changed_source_is_another_recipe(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    line = '{"task": "actions", "source": "Stir %d.", "target": "STIR."}\n'
    source.write_text("".join(line % i for i in range(20)))
    config = BuildConfig(sources=(SourceConfig(format="jsonl", split="train", path=str(source)),))
    build(config, tmp_path / "data", QUIET, workers=1)
    source.write_text("".join(line % i for i in range(21)))
    with pytest.raises(UserError, match="another recipe"):
        build(config, tmp_path / "data", QUIET, workers=1)


def test_a_foreign_folder_is_left_alone_even_where_an_index_lies_in_it(
    published: dict[int, Path], tmp_path: Path
) -> None:
    for name, files in (
        ("site", {"index.json": '{"name": "my web site"}'}),
        ("mixed", {"index.json": (published[1] / "index.json").read_text(), "precious.txt": "x"}),
        ("other", {"precious.txt": "x"}),
        ("theirs", {"tokenizer/tokenizer.json": "{}", "train/rows.arrow": "x"}),
        ("notes", {"index.json": "{", "tokenizer/tokenizer.json": "{}", "lengths/a.npy": "", "train/notes.txt": "x"}),
    ):
        for file, text in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(text)
        with pytest.raises(UserError, match="choose another folder"):
            build(recipe(1), tmp_path / name, QUIET, workers=1, overwrite=True)
        with pytest.raises(UserError, match="choose another folder"):
            build(recipe(1), tmp_path / name, QUIET, workers=1)
        assert set(files_of(tmp_path / name)) == set(files)


def test_data_whose_index_is_damaged_is_replaced_when_asked(published: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "data"
    shutil.copytree(published[1], out)
    (out / "index.json").write_text("{")
    with pytest.raises(UserError, match="--overwrite"):
        build(recipe(1), out, QUIET, workers=1)
    build(recipe(1), out, QUIET, workers=1, overwrite=True)
    assert files_of(out) == files_of(published[1])


def test_other_code_does_not_go_on_with_what_a_kill_left(
    published: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = grown(tmp_path / "data", published[2], recipe(1))
    monkeypatch.setattr(work_folder, "_programs", lambda: "another version")
    build(recipe(1), tmp_path / "data", QUIET, workers=1)
    assert not work.exists()
    assert files_of(tmp_path / "data") == files_of(published[1])


def test_the_lock_of_a_folder_that_is_gone_opens_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening the lock file and locking it, another build finishes and removes the folder."""
    work, real, calls = tmp_path / ".data.partial", work_folder.lock_if_possible, []

    def late(handle: Any, *, wait: bool = True) -> bool:
        calls.append(handle)
        if len(calls) == 1:
            shutil.rmtree(work)
        return real(handle, wait=wait)

    monkeypatch.setattr(work_folder, "lock_if_possible", late)
    with work_folder.work_folder(tmp_path / "data", "a", QUIET), (work / "lock").open("ab") as other:
        assert len(calls) == 2
        assert not real(other, wait=False)


def test_a_file_in_the_place_of_the_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        build(recipe(1), tmp_path / "data", QUIET, workers=1)


def test_a_link_to_a_folder_elsewhere_stays_a_link(published: dict[int, Path], tmp_path: Path) -> None:
    (tmp_path / "scratch" / "full").mkdir(parents=True)
    (tmp_path / "data").symlink_to(tmp_path / "scratch" / "full")
    build(recipe(1), tmp_path / "data", QUIET, workers=1)
    assert (tmp_path / "data").is_symlink()
    assert files_of(tmp_path / "scratch" / "full") == files_of(published[1])


def test_data_of_an_older_format_is_replaced_only_when_asked(published: dict[int, Path], tmp_path: Path) -> None:
    out = tmp_path / "data"
    shutil.copytree(published[1], out)
    table = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps({**table, "format": 1}))
    with pytest.raises(UserError, match="--overwrite"):
        build(recipe(1), out, QUIET, workers=1)
    build(recipe(1), out, QUIET, workers=1, overwrite=True)
    assert files_of(out) == files_of(published[1])
