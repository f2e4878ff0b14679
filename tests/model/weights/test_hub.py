"""Fetching models from a fake hub, in separate processes: huggingface_hub reads its environment only once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import COMMIT, serving

from bigchem.base.errors import UserError
from bigchem.model.weights.hub import cached, fetched, is_path

PROGRAM = """
import sys
from bigchem.base.errors import UserError
from bigchem.model.weights.hub import fetched
try:
    print(fetched(sys.argv[1], weights=sys.argv[2:] != ["small"]))
except UserError as error:
    print(error)
"""


def fetch(*arguments: str, home: Path, **environment: str) -> str:
    """What `fetched` returns or its error, in a separate process."""
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))},
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **environment,
    }
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()


def model(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def in_cache(home: Path, name: str, *files: str) -> Path:
    """A model in the hub's cache, as another program might leave it."""
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    return model(folder / "snapshots" / COMMIT, *files)


def names(folder: str) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def test_safetensors_are_fetched_once_and_pickles_beside_them_never(tmp_path: Path) -> None:
    files = ("config.json", "tokenizer.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json")
    model(tmp_path / "hub" / "a" / "b", *files, "pytorch_model.bin", "tf_model.h5", "model.fp16.safetensors")
    with serving(tmp_path / "hub") as hub:
        home = tmp_path / "home"
        folder = fetch("a/b", home=home, HF_ENDPOINT=hub.url)
        assert names(folder) == set(files)
        assert fetch("a/b", home=home, HF_ENDPOINT=hub.url) == folder
        assert hub.fetched == dict.fromkeys(files, 1)
        assert fetch("a/b", home=home, HF_HUB_OFFLINE="1") == folder
    assert fetch("a/b", home=home, HF_ENDPOINT=hub.url) == folder  # the server is gone


def test_pickles_are_fetched_where_there_are_no_safetensors(tmp_path: Path) -> None:
    model(tmp_path / "hub" / "a" / "b", "config.json", "spiece.model", "pytorch_model.bin", "flax_model.msgpack")
    with serving(tmp_path / "hub") as hub:
        folder = fetch("a/b", home=tmp_path / "home", HF_ENDPOINT=hub.url)
    assert names(folder) == {"config.json", "spiece.model", "pytorch_model.bin"}


def test_without_weights_only_small_files_are_fetched(tmp_path: Path) -> None:
    model(tmp_path / "hub" / "a" / "b", "config.json", "model.safetensors")
    with serving(tmp_path / "hub") as hub:
        assert names(fetch("a/b", "small", home=tmp_path / "home", HF_ENDPOINT=hub.url)) == {"config.json"}
        text = fetch("a/b", home=tmp_path / "home", HF_HUB_OFFLINE="1")
    assert "missing or incomplete in the cache" in text


def test_what_the_hub_does_not_have_is_told(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with serving(tmp_path / "hub") as hub:
        missing = fetch("a/b", home=tmp_path, HF_ENDPOINT=hub.url)
        assert f"a/b: no such folder, and no such model at {hub.url}" in missing
        assert "neither a folder nor a name" in fetch("a b", home=tmp_path, HF_ENDPOINT=hub.url)
    assert f"{hub.url} cannot be reached" in fetch("a/b", home=tmp_path, HF_ENDPOINT=hub.url)


def test_offline_the_cache_is_enough_and_its_lack_is_told(tmp_path: Path) -> None:
    folder = in_cache(tmp_path, "google-t5/t5-small", "config.json", "model.safetensors")
    assert fetch("google-t5/t5-small", home=tmp_path, HF_HUB_OFFLINE="1") == str(folder)
    text = fetch("google-t5/t5-base", home=tmp_path, HF_HUB_OFFLINE="1")
    assert "missing or incomplete in the cache" in text
    assert "HF_HUB_OFFLINE is set" in text
    assert "hf download google-t5/t5-base" in text


def test_a_name_that_no_hub_model_can_have_is_refused_before_the_cache_is_asked() -> None:
    with pytest.raises(UserError, match=r"neither a folder nor a name valid on the hub\nnext: write owner/model"):
        cached("a b/c")


def test_a_path_is_never_asked_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google-t5" / "t5-small").mkdir(parents=True)
    assert fetched("google-t5/t5-small") == Path("google-t5/t5-small")  # one that exists wins
    for name in ("./none", "/none", "~/none", "a/b/c", "../x", ""):
        assert is_path(name), name
    assert not is_path("google-t5/t5-base")
    assert not is_path("t5-base")
    for name in ("./none", "a/b/c", ""):
        with pytest.raises(UserError, match="no such folder"):
            fetched(name)
