"""wandb and mlflow where they are installed: the tests with them are skipped elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from runs import config_of

from bigchem.base.errors import UserError
from bigchem.config import RunConfig
from bigchem.train.logging.scores import share_scores
from bigchem.train.logging.services import Services, check_services

SCORES = {"split": "test", "step": 5, "metrics": [{"task": "forward", "metric": "top1", "value": 0.5, "group": ""}]}


def run_with(runs: Path, **train: str) -> tuple[RunConfig, Path]:
    """A run with these services, and a checkpoint of one file."""
    config = config_of(runs, runs, "run", train=dict(train))
    checkpoint = config.run_dir / "checkpoints" / "step_00000005"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights.bin").write_bytes(b"a checkpoint's bytes")
    return config, checkpoint


def in_two_attempts(config: RunConfig, checkpoint: Path) -> None:
    """Logs as a run does that is killed after step 10, and continues from step 5; then the scores of an evaluation."""
    for steps, failed in (((1, 5, 10), True), ((6, 10, 15), False)):
        services = Services(config)
        for step in steps:
            services.log(step, {"loss/all": 1 / step})
        services.checkpoint(5, checkpoint)
        services.close(failed=failed)
    share_scores(config, config.run_dir, SCORES)


def events_of(config: RunConfig) -> list[dict[str, Any]]:
    file = config.run_dir / "events.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def test_a_service_that_fails_costs_one_warning_and_a_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def down(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    broken = ModuleType("mlflow")
    broken.MlflowClient = down  # type: ignore[attr-defined]
    entities = ModuleType("mlflow.entities")
    entities.Param = down  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", broken)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    config, checkpoint = run_with(tmp_path, mlflow="experiment")
    services = Services(config)
    for step in (1, 2):
        services.log(step, {"loss/all": 1.0})
    services.checkpoint(2, checkpoint)
    services.close(failed=False)
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "mlflow: ConnectionError: no route to host; training continues",
        "mlflow: 4 calls did not reach it",
    ]
    assert [(e["kind"], e["action"]) for e in events_of(config)] == [("mlflow", "training continues")]


def test_a_service_needs_its_package_and_its_address_before_a_job_is_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_services(config_of(tmp_path, tmp_path, "run"))
    config = config_of(tmp_path, tmp_path, "run", train={"mlflow": "experiment"})
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("bigchem.train.logging.services.find_spec", lambda name: object())
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI is not set"):
        check_services(config)
    monkeypatch.setattr("bigchem.train.logging.services.find_spec", lambda name: None)
    for name in ("wandb", "mlflow"):
        with pytest.raises(UserError, match=f"{name} is not installed"):
            check_services(config_of(tmp_path, tmp_path, "run", train={name: "project"}))


def wandb_records(folder: Path) -> list[Any]:
    """The records of a page that wandb keeps on disk: protocol buffers in a log of LevelDB's format."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("*.wandb")
    content, found, at, whole = file.read_bytes(), [], 7, b""  # after the magic number
    while at < len(content):
        if 32768 - at % 32768 < 7:  # no header fits into the rest of a block
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            found.append(Record.FromString(whole))
            whole = b""
    return found


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield module
    module.teardown()


def test_attempts_continue_one_page_at_wandb_kept_on_disk_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    config, checkpoint = run_with(tmp_path, wandb="project")
    in_two_attempts(config, checkpoint)
    assert events_of(config) == []
    pages = sorted((config.run_dir / "wandb").glob("offline-run-*"))
    records = [record for page in pages for record in wandb_records(page)]
    runs = {r.run.run_id for r in records if r.WhichOneof("record_type") == "run"}
    assert runs == {(config.run_dir / "wandb_id").read_text()}
    history = [r.history for r in records if r.WhichOneof("record_type") == "history"]
    assert [(h.step.num, json.loads(i.value_json)) for h in history for i in h.item if "loss/all" in i.nested_key] == [
        (step, pytest.approx(1 / step)) for step in (1, 5, 10, 6, 10, 15)
    ]
    settings = {i.key or i.nested_key[0]: i.value_json for r in records for i in r.run.config.update}
    assert json.loads(settings["optimizer.lr"]) == 1e-3
    artifacts = [r.request.log_artifact.artifact for r in records if r.request.HasField("log_artifact")]
    artifacts += [r.artifact for r in records if r.WhichOneof("record_type") == "artifact"]
    assert {entry.ref for a in artifacts for entry in a.manifest.contents} == {(checkpoint / "weights.bin").as_uri()}
    kept = b"".join(p.read_bytes() for page in pages for p in page.rglob("*") if p.is_file())
    assert b"a checkpoint's bytes" not in kept
    summary = {"/".join(i.nested_key) or i.key: i.value_json for r in records for i in r.summary.update}
    assert json.loads(summary["test/forward/top1"]) == 0.5


def test_wandb_without_its_server_keeps_the_page_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the port of `discard`: nothing listens
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    config, _ = run_with(tmp_path, wandb="project")
    services = Services(config)
    services.log(1, {"loss/all": 2.0})
    services.close(failed=False)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("wandb: ") and "continues" in x]
    assert "`wandb sync`; training continues" in line
    (page,) = (config.run_dir / "wandb").glob("offline-run-*")
    assert [r for r in wandb_records(page) if r.WhichOneof("record_type") == "history"]
    assert [e["kind"] for e in events_of(config)] == ["wandb"]


def test_attempts_continue_one_record_at_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "server").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    config, checkpoint = run_with(tmp_path, mlflow="experiment")
    in_two_attempts(config, checkpoint)
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("experiment").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["optimizer.lr"] == "0.001"
    assert found.data.metrics == {"loss/all": 1 / 15, "test/forward/top1": 0.5}
    history = client.get_metric_history(found.info.run_id, "loss/all")
    assert {m.step for m in history} == {1, 5, 6, 10, 15}
    assert found.data.tags["checkpoint"] == checkpoint.as_uri()
    assert events_of(config) == []
