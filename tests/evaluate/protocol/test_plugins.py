"""Metrics of other packages are found by name; an error names the package, and costs no other score."""

import re
import subprocess
import sys

import pytest

from bigchem.base.errors import UserError
from bigchem.evaluate.protocol import plugins
from bigchem.evaluate.protocol.definitions import chosen_metrics, family_metrics, higher_is_better
from bigchem.evaluate.protocol.pairs import Pairs
from bigchem.evaluate.protocol.score_task import score_pairs

MODULE = """
from bigchem.evaluate.protocol.plugins import ExampleMetric

def _same_sign(references, predictions, sources):
    def positive(text):
        try:
            return float(text) > 0
        except ValueError:
            return None
    return [float("nan") if "?" in source else positive(reference) == positive(prediction)
            for reference, prediction, source in zip(references, predictions, sources, strict=True)]

SAME_SIGN = ExampleMetric("same_sign", "same_sign/v1", "Share of predictions with the reference's sign.", _same_sign)
"""
PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "solubility-metrics"
version = "1.0"
[project.entry-points."bigchem.metrics"]
same_sign = "solubility_metrics:SAME_SIGN"
[tool.setuptools]
py-modules = ["solubility_metrics"]
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes installed packages, by hand: a module and the folder of metadata that pip would write."""
    made = []

    def make(name, body, **entries):
        folder = tmp_path / name
        metadata = folder / f"{name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{name}_module.py").write_text(body)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{metric} = {name}_module:{what}\n" for metric, what in entries.items()]
        (metadata / "entry_points.txt").write_text("[bigchem.metrics]\n" + "".join(lines))
        monkeypatch.syspath_prepend(folder)
        made.append(f"{name}_module")

    yield make
    for module in made:
        sys.modules.pop(module, None)


def metric(name="mine", compute="lambda references, predictions, sources: [1.0] * len(references)", **fields):
    named = {"definition": f"{name}/v1", "meaning": "A meaning.", **fields}
    options = ", ".join(f"{field}={value!r}" for field, value in named.items())
    return (
        "from bigchem.evaluate.protocol.plugins import ExampleMetric\n"
        f"FOUND = ExampleMetric({name!r}, compute={compute}, {options})\n"
    )


def scores_of(metrics, references, predictions, sources=None):
    pairs = Pairs(sources or [""] * len(references), references, [[one] for one in predictions])
    return {one.metric: one for one in score_pairs("mine", metrics, pairs, bootstrap=100)}


@pytest.mark.heavy
def test_a_metric_of_a_package_that_pip_installed_is_scored_beside_the_familys(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (source / "solubility_metrics.py").write_text(MODULE)
    (source / "pyproject.toml").write_text(PYPROJECT)
    install = ["install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    monkeypatch.syspath_prepend(target)
    metrics = chosen_metrics("number", ["rmse", "same_sign"])
    assert [one.name for one in metrics] == ["rmse", "same_sign"]
    assert metrics[1].meaning.endswith("(Package solubility-metrics.)")
    sources = ["CCO"] * 20 + ["?"]
    found = scores_of(metrics, ["1"] * 21, ["2"] * 15 + ["-2"] * 6, sources)["same_sign"]
    assert (found.value, found.n, found.interval, found.definition) == (0.75, 20, "bootstrap", "same_sign/v1")
    assert 0.4 < found.low < 0.75 < found.high < 1
    monkeypatch.delitem(sys.modules, "solubility_metrics")


def test_a_familys_metrics_can_be_chosen_by_name_and_all_at_once():
    assert [one.name for one in chosen_metrics("number", ["spearman", "rmse"])] == ["spearman", "rmse"]
    assert chosen_metrics("number", ["spearman", "number"])[1:] == tuple(
        one for one in family_metrics("number") if one.name != "spearman"
    )
    assert chosen_metrics("number") == family_metrics("number")
    assert "round_trip" in {one.name for one in chosen_metrics("reaction", inverse=True)}


def test_an_unknown_metric_is_refused_with_the_nearest(package):
    package("nearby", metric(), mine="FOUND")
    with pytest.raises(
        UserError, match=r"tasks\.solubility\.metrics: unknown metric 'rsme'\nnext: did you mean 'rmse'"
    ):
        chosen_metrics("number", ["rsme"], where="tasks.solubility.metrics")
    with pytest.raises(UserError, match="did you mean 'mine'"):
        chosen_metrics("number", ["mine1"])
    with pytest.raises(UserError, match="unknown metric 'f1'"):
        chosen_metrics("number", ["f1"])


def test_a_package_that_nobody_asks_for_is_not_imported(package):
    package("idle", "raise RuntimeError('imported')", idle_metric="FOUND")
    assert chosen_metrics("number", ["rmse"])
    assert "idle_metric" in plugins.installed()


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("import a_library_that_is_not_there", "does not load: ModuleNotFoundError"),
        ("FOUND = len", "is builtin_function_or_method, not an ExampleMetric"),
        ("", "does not load: AttributeError"),
        (metric("other"), "calls itself 'other'"),
        (metric(definition="mine"), "needs a definition NAME/VERSION and a meaning"),
        (metric(meaning=""), "needs a definition NAME/VERSION and a meaning"),
        (metric(definition="rmse/number-v1"), "'rmse/number-v1' is bigchem's own"),
    ],
)
def test_a_package_whose_metric_is_unusable_is_named(package, body, what):
    package("faulty", body, mine="FOUND")
    with pytest.raises(UserError, match=rf"metric mine of package faulty \(faulty_module:FOUND\): {what}"):
        chosen_metrics("number", ["mine"])


def test_a_package_cannot_take_the_name_of_another_familys_metric(package):
    package("thief", metric("rmse"), rmse="FOUND")
    assert chosen_metrics("number", ["rmse"])[0].definition == "rmse/number-v1"
    with pytest.raises(UserError, match=r"package thief .* 'rmse' is bigchem's own"):
        chosen_metrics("text", ["rmse"])


@pytest.mark.parametrize("fields", [{"name": "loss"}, {"definition": "loss/token-mean-v1"}])
def test_a_package_cannot_take_the_name_of_the_loss(package, fields):
    name = fields.get("name", "mine")
    package("thief", metric(**fields), **{name: "FOUND"})
    with pytest.raises(UserError, match=r"package thief .* 'loss.*' is bigchem's own"):
        chosen_metrics("number", [name])


def test_two_packages_with_one_name_are_refused(package):
    package("first", metric(), mine="FOUND")
    package("second", metric(), mine="FOUND")
    with pytest.raises(UserError, match="two metrics of the name 'mine'"):
        chosen_metrics("number", ["mine"])


def test_the_direction_of_any_metric_is_known(package):
    package("errors", metric(higher_is_better=False), mine="FOUND")
    assert [higher_is_better(name) for name in ("mine", "rmse", "r2", "nothing")] == [False, False, True, None]


@pytest.mark.parametrize(
    ("compute", "what"),
    [
        ("lambda r, p, s: 1 / 0", "failed: ZeroDivisionError"),
        ("lambda r: r", "failed: TypeError"),
        ("lambda r, p, s: ['good'] * len(r)", "failed: ValueError"),
        ("lambda r, p, s: [1.0]", r"gave \(1,\), not one finite number or NaN for each of 2 examples"),
        ("lambda r, p, s: 1.0", r"gave \(\), not one"),
        ("lambda r, p, s: [float('inf')] * len(r)", "gave"),
    ],
)
def test_a_metric_that_fails_is_na_names_its_package_and_leaves_the_rest(package, compute, what):
    package("failing", metric(compute=compute), mine="FOUND")
    scores = scores_of(chosen_metrics("number", ["mine", "mae"]), ["1", "2"], ["1", "3"])
    assert scores["mae"].value == 0.5
    assert scores["mine"].value is None
    assert re.match(rf"metric mine of package failing \(failing_module:FOUND\) {what}", scores["mine"].note)


def test_a_metric_sees_the_best_prediction_and_counts_only_what_it_can(package):
    compute = "lambda r, p, s: [float('nan') if not b else float(a + c == b) for a, b, c in zip(r, p, s)]"
    package("looking", metric(compute=compute), mine="FOUND")
    pairs = Pairs(["x", "y", "z"], ["a", "b", "c"], [["ax", "no"], [""], ["no", "cz"]])
    (found,) = score_pairs("mine", chosen_metrics("text", ["mine"]), pairs)
    assert (found.value, found.n) == (0.5, 2)
    several = Pairs(["x"], [["a", "b"]], [["ax"]])
    (found,) = score_pairs("mine", chosen_metrics("text", ["mine"]), several)
    assert found.note == "not defined for several references of an example"
