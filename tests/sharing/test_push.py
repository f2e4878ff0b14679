"""`bigchem push` against a stand-in for the hub: what is sent, what stays, and what is refused before anything is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hub_stand_in import TOKEN, StandIn, serving
from huggingface_hub import constants
from made_checkpoints import SHAPE, made_run
from typer.testing import CliRunner

from bigchem.base.errors import UserError
from bigchem.cli.main import app
from bigchem.export import export
from bigchem.sharing import provenance, push
from bigchem.sharing.lineage import Base, Source
from bigchem.sharing.provenance import DataFacts, Provenance


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An exported model, with files beside it that nobody should get."""
    made = export(made_run(tmp_path / "run", SHAPE, 3), tmp_path / "model", shard_size="20KB").model_dir
    (made / "results").mkdir()
    for name in ("results/predictions.jsonl", "optimizer.pt", "train.log", "notes.txt", ".env"):
        (made / name).write_text("mine")
    return made


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, which `bigchem push` takes for the hub: huggingface_hub has read HF_ENDPOINT already."""
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def pushed(model: Path, *options: str) -> str:
    """The output of a push to ada/small. UserError if it is refused."""
    done = CliRunner().invoke(app, ["push", str(model), "ada/small", *options])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_the_model_is_sent_and_nothing_else(model: Path, hub: StandIn) -> None:
    dry = pushed(model, "--private", "--dry-run")
    assert "note: the model's licence is unknown: bigchem card MODEL --license ID" in dry
    assert hub.requests == []
    done = pushed(model, "--private")
    assert done.startswith(dry)
    assert done.rstrip().endswith("/ada/small")
    shards = {path.name for path in model.glob("model-*.safetensors")}
    assert len(shards) > 1
    assert hub.files.keys() == shards | {
        *("README.md", "bigchem.json", "config.json", "generation_config.json", "model.safetensors.index.json"),
        *("provenance.json", "tokenizer.json"),
    }
    assert all(hub.files[name] == (model / name).read_bytes() for name in shards)
    assert 'from_pretrained("ada/small")' in hub.files["README.md"].decode()
    assert "stays here: .env, notes.txt, optimizer.pt, results, train.log" in done
    assert hub.repositories == {"ada/small": True}


def test_a_hub_that_refuses_or_is_away_is_told_in_words(
    model: Path, hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["ada/small"] = False
    with pytest.raises(UserError, match="the repository exists and is public"):
        pushed(model, "--private")
    monkeypatch.setenv("HF_TOKEN", "hf_of_another")
    with pytest.raises(UserError, match="does not let this token write here"):
        pushed(model, "--unknown-data")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9 cannot be reached: .*refused"):
        pushed(model, "--unknown-data")
    assert hub.files == {}


SECRET = Source("csv patients.csv", 9, license="private")
OPEN = DataFacts("f", None, [Source("csv public.csv", 9, license="cc0-1.0")])


def trained(model: Path) -> Provenance:
    found = provenance.read(model)
    assert found is not None
    return found


def test_a_model_that_began_with_one_of_private_data_is_not_public(model: Path) -> None:
    first = Base("first", step=1, data="e", sources=[SECRET])
    replace(trained(model), data=OPEN, base=Base("second", step=2, data="d", sources=[], base=first)).write(model)
    with pytest.raises(UserError, match=r"patients.csv \(first\)\nnext: add --private"):
        pushed(model, "--unknown-data", "--dry-run")
    pushed(model, "--private", "--dry-run")


def test_a_model_of_unknown_data_is_public_only_if_that_is_confirmed(model: Path) -> None:
    earlier = Base("earlier", step=1, data="e")
    for data, base, names in ((DataFacts("f"), None, "run"), (OPEN, earlier, "earlier")):
        replace(trained(model), data=data, base=base).write(model)
        with pytest.raises(UserError, match=f"what {names} was trained on: .*\n.*--unknown-data if its data may be"):
            pushed(model, "--dry-run")
        pushed(model, "--unknown-data", "--dry-run")
        pushed(model, "--private", "--dry-run")


def test_a_run_records_the_sources_of_the_model_it_begins_with(model: Path) -> None:
    replace(trained(model), data=OPEN).write(model)
    assert provenance.base_at(str(model)).sources == OPEN.sources


def test_a_model_that_began_with_one_of_the_hub_is_public(model: Path) -> None:
    replace(trained(model), data=OPEN, base=Base("t5-small", on_hub=True)).write(model)
    pushed(model, "--dry-run")


def test_what_must_not_or_cannot_be_sent_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, message in (("small", "write OWNER/small"), ("a/b/c", "not a name of the hub"), ("a/b c", "OWNER/NAME")):
        with pytest.raises(UserError, match=message):
            push.plan(model, name)
    replace(trained(model), data=DataFacts("f", None, [SECRET])).write(model)
    plan = push.plan(model, "ada/small")
    with pytest.raises(UserError, match=r"patients.csv \(run\)\nnext: add --private"):
        push.check(plan, private=False, dry_run=True)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    push.check(plan, private=True, dry_run=True)
    with pytest.raises(UserError, match=r"no token for the hub\nnext: hf auth login"):
        push.check(plan, private=True)
    next(model.glob("model-*")).unlink()
    with pytest.raises(UserError, match=r"not those that bigchem\.json lists"):
        push.plan(model, "ada/small")
    for path in model.glob("model-*"):
        path.unlink()
    with pytest.raises(UserError, match="no weights here"):
        push.plan(model, "ada/small")
    (model / "unfinished.json").write_text("{}")
    with pytest.raises(UserError, match="an export is not finished here"):
        push.plan(model, "ada/small")
