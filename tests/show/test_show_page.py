"""Pages of run folders written here; tests/launch/test_job.py has that of a run that was trained."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from browser import needs_browser, window
from runs import config_of
from typer.testing import CliRunner

from bigchem.base import toml
from bigchem.base.errors import UserError
from bigchem.cli.main import app
from bigchem.launch.runs.history import Attempt
from bigchem.run.state import write_state
from bigchem.show.curves import MARKS, MOST, POINTS, run_figures, thinned
from bigchem.show.record import read_records
from bigchem.show.write_page import write_comparison, write_run

BEGUN = 1_700_000_000.0
TASKS = ("captioning", "forward")


def folder(runs: Path, name: str, **sections: dict[str, Any]) -> Path:
    """A run folder without any step."""
    data = {"mixture": dict.fromkeys(TASKS, 1.0), **sections.pop("data", {})}
    config = config_of(runs, runs / "data", name, data=data, **sections)
    config.run_dir.mkdir(parents=True)
    (config.run_dir / "config.toml").write_text(toml.dump(config))
    return config.run_dir


def rows_of(count: int) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl: every fifth has a validation, the third a loss that is not finite."""
    rows: list[dict[str, Any]] = []
    for step in range(1, count + 1):
        losses = {task: 1 + 5 / step + index for index, task in enumerate(TASKS)}
        row = {"step": step, "time": BEGUN + step, "tokens": 1500 * step, "loss": 1.5 + 5 / step, "lr": 1e-3 / step}
        row |= {f"loss/{task}": loss for task, loss in losses.items()}
        row |= {"grad_norm": 1.0, "tokens_per_s": 2e4, "memory": 2.0**30}
        if step % 5 == 0:
            row |= {"valid_loss": 2.0, **{f"valid_loss/{task}": loss for task, loss in losses.items()}}
        rows.append(row)
    if count > 2:
        rows[2] |= {"loss": None, "grad_norm": None}
    return rows


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def restarted(runs: Path) -> Path:
    """A run whose node failed, and that goes on with half of its ranks; a step was skipped."""
    run = folder(runs, "restarted", validation={"every": 5, "split": "test"})
    write_rows(run / "metrics.jsonl", rows_of(20))
    first = Attempt(1, "7", 0, "gpu[1-2]", 8, 0, BEGUN, 12, "hung", "rank 5 has <b>not</b> moved", 12.0, "gpu2")
    write_rows(run / "history.jsonl", [asdict(first)])
    (run / "attempt.json").write_text(json.dumps(asdict(Attempt(2, "7", 1, "gpu1", 4, 9, BEGUN + 15))))
    event = {"time": BEGUN, "step": 4, "kind": "bad loss", "action": "skipped", "detail": "nan", "keys": ["a", "b"]}
    write_rows(run / "events.jsonl", [event])
    sample = {"task": "forward", "source": "product: CCO", "reference": "CC=O"}
    write_rows(
        run / "samples.jsonl",
        [{"step": 5, **sample, "prediction": "<script>C</script>"}, {"step": 10, **sample, "prediction": "CC=O"}],
    )
    write_state(run, "running", step=20, steps=40)
    return run


def page_of(run: Path) -> str:
    write_run(*read_records([run]), run / "report.html")
    return (run / "report.html").read_text()


def test_a_run_that_goes_on_with_fewer_nodes_shows_its_attempts_events_and_samples(tmp_path: Path) -> None:
    page = page_of(restarted(tmp_path))
    attempts = page.split('<table id="attempts">')[1].split("</table>")[0]
    first, second = attempts.split("<tbody>")[1].split("</tr>")[:2]
    for text in ("gpu[1-2]; blamed: gpu2", ">8<", "0 – 12", ">3<", ">hung<", "rank 5 has &lt;b&gt;not&lt;/b&gt; moved"):
        assert text in first
    for text in ("7, restart 1", ">4<", "9 – 20", "not ended"):
        assert text in second
    events = page.split('<table id="events">')[1].split("</table>")[0]
    assert "bad loss" in events
    assert '<td class="n">2</td>' in events  # examples
    assert "<script>" not in page
    assert "&lt;script&gt;C&lt;/script&gt;" in page
    assert '<td class="smiles right">CC=O</td>' in page
    for name in ("loss", "valid", "lr", "grad", "speed", "memory", "timeline"):
        assert f'id="{name}-figure_1"' in page


def test_a_run_at_any_time_has_a_page_that_says_what_is_missing(tmp_path: Path) -> None:
    page = page_of(folder(tmp_path, "prepared"))
    for text in ("No step has been logged yet", "No attempt is recorded", "None: no restart was asked for"):
        assert text in page
    failed = folder(tmp_path, "failed")
    write_state(failed, "failed", end="error", reason="out of memory", step=1, steps=6)
    write_rows(failed / "metrics.jsonl", rows_of(1))
    (failed / "metrics.jsonl").open("a").write('{"step": 2, "lo')
    (failed / "model.json").write_text("torn")
    page = page_of(failed)
    for text in ("failed: out of memory", "metrics.jsonl: damaged, skipped: line 2: torn", "model.json: not JSON"):
        assert text in page
    assert 'id="loss-figure_1"' in page  # of a single point
    with pytest.raises(UserError, match="no run folder"):
        read_records([tmp_path])


def test_json_is_strict_and_has_what_the_page_says(tmp_path: Path) -> None:
    run = restarted(tmp_path)
    write_rows(run / "metrics.jsonl", rows_of(3))  # the last loss is not finite
    called = CliRunner().invoke(app, ["show", str(run), "--json"])
    found = json.loads(called.stdout, parse_constant=pytest.fail)
    assert found["last"]["loss"] is None
    assert [(one["ranks"], one["end"]) for one in found["attempts"]] == [(8, "hung"), (4, "")]
    assert [event["kind"] for event in found["events"]] == ["bad loss"]
    assert found["configuration"]["optimizer.lr"] == 1e-3
    assert not (run / "report.html").exists()


def test_many_rows_are_drawn_as_means_which_the_caption_says(tmp_path: Path) -> None:
    points = [(float(step), math.nan if step % 2 else float(step)) for step in range(3 * POINTS)]
    means, size = thinned(points)
    assert (len(means), size) == (POINTS, 3)
    assert means[:2] == [(2.0, 1.0), (5.0, 4.0)]
    run = folder(tmp_path, "long")
    write_rows(run / "metrics.jsonl", rows_of(POINTS + 1))
    (record,) = read_records([run])
    loss = next(run_figures(record))
    assert "each point is the mean of 2 rows" in loss.caption
    assert loss.inline.count('class="point"') == 3 * MARKS  # two tasks, and all


def test_runs_are_compared_by_what_differs(tmp_path: Path) -> None:
    runs = [folder(tmp_path, "a"), folder(tmp_path / "other", "a", optimizer={"lr": 2e-3}), folder(tmp_path, "c")]
    scores = [{"task": "forward", "metric": "top1", "value": 0.25, "low": 0.2, "high": 0.3, "group": ""}]
    for run in runs[:2]:
        write_rows(run / "metrics.jsonl", rows_of(10))
    (runs[1] / "results").mkdir()
    results = {"split": "test", "step": 6, "metrics": scores, "tasks": {"forward": {"headline": "top1"}}}
    (runs[1] / "results" / "results.json").write_text(json.dumps(results))
    out = tmp_path / "comparison.html"
    assert CliRunner().invoke(app, ["show", *map(str, runs), "--out", str(out)]).exit_code == 0
    page = out.read_text()
    differing = page.split('<table id="differing">')[1].split("</table>")[0]
    assert [cell.split("<")[0] for cell in differing.split("<code>")[1:]] == ["data.path", "optimizer.lr"]
    assert ">0.002<" in differing
    assert f"<th>{runs[1]}</th>" in differing  # the names are the same: the paths tell them apart
    assert '0.2500 <span class="sub">[0.2000, 0.3000]</span>' in page
    assert "Training loss by step" in page
    with pytest.raises(UserError, match="tell 27 apart"):
        write_comparison(read_records(runs[:1]) * (MOST + 1), out)


def test_runs_with_other_batches_are_compared_by_tokens(tmp_path: Path) -> None:
    runs = [folder(tmp_path, "a"), folder(tmp_path, "b", data={"global_tokens": 3000})]
    for run in runs:
        write_rows(run / "metrics.jsonl", rows_of(10))
    write_comparison(read_records(runs), tmp_path / "comparison.html")
    assert "Training loss by tokens" in (tmp_path / "comparison.html").read_text()


OVERLAPS = """figures => figures.flatMap(svg => {
  const boxes = [...svg.querySelectorAll("text")].filter(t => !t.closest(".point") && t.textContent.trim())
    .map(t => [t.textContent, t.getBoundingClientRect()]);
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1)
    .filter(([, q]) => p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 2 && q.top < p.bottom - 2)
    .map(([b]) => `${a} / ${b}`));
})"""


@needs_browser
def test_the_page_opens_without_a_network_and_no_text_lies_on_another(tmp_path: Path) -> None:
    run = restarted(tmp_path)
    page_of(run)
    with window(offline=True) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((run / "report.html").as_uri())
        assert asked == [(run / "report.html").as_uri()]
        assert page.eval_on_selector_all("figure svg", OVERLAPS) == []
        page.locator("#loss-figure_1 ~ .point").first.focus()
        assert page.locator("#loss-figure_1 ~ .point text").first.is_visible()
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
