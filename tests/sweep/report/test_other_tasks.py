"""A sweep of tasks that do not ship is analysed and reported by the records in its results."""

from __future__ import annotations

import csv
import itertools
import json
import re
from pathlib import Path
from typing import Any

import other_tasks
import planted_sweep
import pytest
from planted_sweep import SIZES, write_result
from typer.testing import CliRunner

from bigchem.base.errors import UserError
from bigchem.cli.main import app
from bigchem.launch.runs.status import RunStatus
from bigchem.sweep.analysis.analyse import Analysis
from bigchem.sweep.outcome import outcome, to_csv
from bigchem.sweep.report import write_report
from bigchem.sweep.report.figures.by_size import task_style
from bigchem.sweep.report.figures.drawing import DARK, LIGHT, MORE_DARK, MORE_LIGHT
from bigchem.sweep.scores.results import load
from bigchem.tasks import Tasks, merged, read_records, shipped


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    return write_report.study([other_tasks.write_sweep(tmp_path_factory.mktemp("sweep"))])


def test_the_headlines_and_kinds_are_those_of_the_records(study: Analysis) -> None:
    assert study.headline == {
        "solubility": "rmse",
        "toxic": "roc_auc",
        "conditions": "rougeL",
        "title": "fluency",
    }
    kinds = {line.split(" (")[0]: line.split("(")[1].split(")")[0] for line in study.sentences[-4:]}
    assert kinds == {
        "solubility": "cross-domain",
        "toxic": "cross-domain",
        "conditions": "cross-domain",
        "title": "single-domain",
    }


def test_less_of_an_error_or_of_a_packages_metric_is_a_gain(study: Analysis) -> None:
    for task, metric in study.headline.items():
        gains = study.gains_of((task, metric))
        assert [gain.parameters for gain in gains] == list(SIZES)
        assert all(gain.estimate.value > 0 for gain in gains)
    assert study.gains_of(("solubility", "rmse"))[0].estimate.value == pytest.approx(0.075)
    assert study.gains_of(("title", "fluency"))[0].estimate.value == pytest.approx(2.0)


def test_errors_and_metrics_of_unknown_bounds_are_not_averaged_with_shares_and_it_is_said(study: Analysis) -> None:
    pools = {(pool.kind, pool.of): pool.tasks for pool in study.pools}
    assert pools["cross-domain", "headline"] == ("toxic", "conditions")
    assert ("single-domain", "headline") not in pools
    assert pools["cross-domain", "loss"] == ("solubility", "toxic", "conditions")
    note = "Not in the pooled gain of headline metrics: solubility RMSE and title fluency have scales of their own."
    assert note in study.notes


def test_a_correlation_below_zero_is_possible_and_an_error_below_zero_is_not(tmp_path: Path) -> None:
    results = load([other_tasks.write_sweep(tmp_path)])
    found = write_report.analyse(results, ["solubility:rmse", "solubility:spearman"], extrapolate=[5e4])
    assert not [note for note in found.notes if "impossible" in note]
    far = write_report.analyse(
        results, ["solubility:rmse", "solubility:spearman"], extrapolate=[1e16], beyond_a_decade=True
    )
    impossible = [note.split(" read")[0] for note in far.notes if "impossible" in note]
    assert impossible == [f"solubility {what}" for what in ("RMSE together", "RMSE alone")]


def test_the_page_the_tables_and_the_figures_are_written(study: Analysis, tmp_path: Path) -> None:
    page = write_report.write(study, tmp_path).read_text()
    rows = list(csv.DictReader((tmp_path / "gain.csv").open()))
    assert {row["task"]: row["kind"] for row in rows}["title"] == "single-domain"
    assert (tmp_path / "figures" / "solubility-rmse.svg").is_file()
    assert "lower is better" in (tmp_path / "figures" / "title-fluency.svg").read_text()
    assert "of headline metrics (between 0 and 1)" in page
    assert f"--red:{MORE_LIGHT['red']};" in page


def test_a_metric_of_any_name_has_a_figure_inside_the_folder(tmp_path: Path) -> None:
    content = other_tasks.results_of(SIZES[0], ("title",))
    content["metrics"] = [{**content["metrics"][0], "metric": "../P@5 (%)", "higher_is_better": True}]
    analysis = write_report.study([write_result(tmp_path, content)], ["title:../P@5 (%)"])
    write_report.write(analysis, tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "title-.._P_5_.svg").is_file()


def changed(tmp_path: Path, **changes: Any) -> list[Path]:
    """Two results that differ in the record of solubility."""
    one, two = (other_tasks.results_of(size, ("solubility",)) for size in SIZES[:2])
    two["tasks"] = {"solubility": {**other_tasks.RECORDS["solubility"], **changes}}
    return [write_result(tmp_path, one), write_result(tmp_path, two)]


@pytest.mark.parametrize("changes", [{"headline": "mae"}, {"source": "text"}, {"family": "text", "target": "text"}])
def test_results_that_disagree_about_a_task_are_refused_unless_allowed(tmp_path: Path, changes: dict[str, Any]) -> None:
    if "target" in changes:
        changes = {**changes, "decimals": None}
    files = changed(tmp_path, **changes)
    with pytest.raises(UserError, match="different records of the task solubility: 'chemistry to number, ") as error:
        load(files)
    assert "--allow-mixed" in str(error.value.hint)
    assert any("different records" in note for note in load(files, allow_mixed=True).notes)


@pytest.mark.parametrize("changes", [{"id": 7}, {"prompt": ["a: ", "b: "]}])
def test_ids_and_prompts_may_differ(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert list(load(changed(tmp_path, **changes)).tasks) == ["solubility"]


def test_one_id_of_two_tasks_in_two_files_is_no_conflict(tmp_path: Path) -> None:
    for task in ("solubility", "toxic"):
        content = other_tasks.results_of(SIZES[0], (task,))
        content["tasks"] = {task: {**other_tasks.RECORDS[task], "id": 0}}
        write_result(tmp_path, content)
    assert set(load([tmp_path]).tasks) == {"solubility", "toxic"}


def test_tasks_that_ship_come_first_and_others_as_they_appear(tmp_path: Path) -> None:
    for number, task in enumerate(("toxic", "solubility")):
        write_result(tmp_path / str(number), other_tasks.results_of(SIZES[0], (task,)) | {"data_fingerprint": "f" * 16})
    write_result(tmp_path / "2", planted_sweep.results_of(SIZES[0], ("forward",)) | {"decoding": {"num_beams": 1}})
    results = load([tmp_path])
    assert list(results.tasks) == ["forward", "toxic", "solubility"]


def test_a_task_that_the_results_do_not_define_is_refused_and_one_without_test_rows_is_not(tmp_path: Path) -> None:
    content = other_tasks.results_of(SIZES[0], ("solubility",))
    content["mixture"]["unscored"] = 1.0
    assert load([write_result(tmp_path, content)]).runs[0].regime == "together"
    content["metrics"][0]["task"] = "solubilty"
    with pytest.raises(UserError, match=r"unknown task 'solubilty'\n.*did you mean 'solubility'") as error:
        load([write_result(tmp_path, content)])
    assert "metrics[0].task" in str(error.value.where)


def test_a_packages_metric_is_better_in_one_direction(tmp_path: Path) -> None:
    one, two = (other_tasks.results_of(size, ("title",)) for size in SIZES[:2])
    two["metrics"][1]["higher_is_better"] = True
    files = [write_result(tmp_path, content) for content in (one, two)]
    with pytest.raises(UserError, match="`higher_is_better` of fluency differs"):
        load(files, allow_mixed=True)
    del two["metrics"][1]["higher_is_better"]
    with pytest.raises(UserError, match="unknown metric 'fluency'"):
        load([write_result(tmp_path, two)])


TABLE = "parameters,task,regime,metric,value,higher_is_better\n"


def test_a_table_may_name_tasks_of_a_file_and_metrics_of_a_package(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[tasks.solubility]\nsource = "chemistry"\ntarget = "number"\nprompt = "S: "\n')
    table = tmp_path / "scores.csv"
    table.write_text(f"{TABLE}10,solubility,alone,rmse,1.5,\n20,solubility,alone,closeness,2.5,true\n")
    with pytest.raises(UserError, match=r"unknown task 'solubility'\n.*--tasks FILE") as error:
        load([table])
    assert str(error.value.where) == f"{table}:2.task"
    results = load([table], tasks=merged(read_records(recipe)))
    assert [score.scale.higher_is_better for score in results.scores] == [False, True]
    assert results.tasks["solubility"].headline == "rmse"
    done = CliRunner().invoke(
        app, ["sweep", "report", str(table), "--tasks", str(recipe), "--out", str(tmp_path / "out"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["headline"] == {"solubility": "rmse"}


def test_the_csv_of_sweep_results_is_read_with_the_tasks(tmp_path: Path) -> None:
    file = write_result(tmp_path, other_tasks.results_of(SIZES[0], tuple(other_tasks.RECORDS)))
    found = outcome(file.parents[1], RunStatus("x", "finished", False, 3, 3))
    (tmp_path / "scores.csv").write_text(to_csv([found]))
    tasks = Tasks.from_json(other_tasks.RECORDS, "x")
    read = load([tmp_path / "scores.csv"], tasks=tasks)
    assert [(s.task, s.metric, s.scale) for s in read.scores] == [(s.task, s.metric, s.scale) for s in found.scores]


@pytest.mark.thorough
@pytest.mark.heavy
def test_fourteen_tasks_of_one_kind_have_a_colour_and_marker_each_and_labels_that_do_not_touch(tmp_path: Path) -> None:
    records = {f"property_number_{n}": other_tasks.RECORDS["toxic"] for n in range(14)}
    for size in SIZES[:2]:
        for mixture in (tuple(records), *((task,) for task in records)):
            content = other_tasks.results_of(size, ("toxic",))
            rows = [row for row in content["metrics"] if row["metric"] == "roc_auc"]
            metrics = [
                {**row, "task": task, "value": row["value"] + (len(mixture) > 1) * 0.01 * int(task[-1])}
                for task in mixture
                for row in rows
            ]
            metrics = [{**row, "low": row["value"], "high": row["value"]} for row in metrics]
            name = f"{size}-{len(mixture)}-{mixture[0]}"
            tasks = {task: records[task] for task in mixture}
            write_result(
                tmp_path,
                content | {"run": name, "mixture": dict.fromkeys(mixture, 1.0), "metrics": metrics, "tasks": tasks},
            )
    analysis = write_report.study([tmp_path])
    styles = {task_style(task, analysis.results.tasks) for task in analysis.results.tasks}
    assert len(styles) == 14
    assert not styles & {task_style(task, shipped()) for task in shipped().scored}
    write_report.write(analysis, tmp_path / "out")
    svg = (tmp_path / "out" / "figures" / "cross-domain-gain.svg").read_text()
    heights = sorted(float(y) for y in re.findall(r' y="([0-9.]+)"[^>]*>property_number_', svg))
    assert len(heights) == 14
    assert min(b - a for a, b in itertools.pairwise(heights)) > 8.5


@pytest.mark.parametrize(("palette", "page"), [(LIGHT | MORE_LIGHT, "#ffffff"), (DARK | MORE_DARK, "#14171d")])
def test_colours_have_the_contrast_of_text_and_are_apart(palette: dict[str, str], page: str) -> None:
    def linear(colour: str) -> list[float]:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]

    def luminance(colour: str) -> float:
        return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))

    for name, colour in palette.items():
        high, low = sorted((luminance(colour), luminance(page)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, name
    assert len(set(palette.values())) == len(palette)
