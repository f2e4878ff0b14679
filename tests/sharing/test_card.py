"""The model card says what was trained, and nothing that was not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from made_checkpoints import SHAPE, made_run

from bigchem.base.errors import UserError
from bigchem.base.toml import dump, validate
from bigchem.config import RunConfig
from bigchem.data.storage.shards import Data
from bigchem.evaluate.protocol.score_task import Score
from bigchem.evaluate.subject import model_hash
from bigchem.export import export
from bigchem.sharing import provenance
from bigchem.sharing.card import FILE, SCORES, after_evaluation, rendered, take_scores, write_card
from bigchem.sharing.contents import Card, Results
from bigchem.sharing.lineage import Base, Source, record_base
from bigchem.sharing.metadata import metadata
from bigchem.sharing.provenance import AS_TRAINED, DataFacts, Provenance, Recipe, base_at, weights_hash
from bigchem.sharing.readme import text
from bigchem.tasks import Task, TaskConfig, Tasks, shipped, write_tasks
from bigchem.train.checkpoint.store import step_name

RECIPE = Recipe(9, {"soluble": 2.0}, None, 1500, 128, 64, "drop", "bf16", "adamw", 1e-3, "cosine", 0.1, 0)
DATA = DataFacts("f" * 16, {"train": {"soluble": 90}, "test": {"soluble": 10}}, [Source("csv mine.csv", 100)])
TRAINED = Provenance("mine", "1.0", 9, 360, 13500, AS_TRAINED, "probe loss 1", DATA, RECIPE)
SOLUBLE = Task.of(
    "soluble", TaskConfig(source="chemistry", target="label", prompt="Is `it` | {source}?", labels=("no", "yes"))
)
SCORED = Results(
    [
        Score("soluble", "roc_auc", 0.75, 0.7, 0.8, 10, "roc_auc/v1", higher_is_better=True),
        Score("soluble", "f1", None, None, None, 0, "f1/v1", "needs more"),
    ],
    *("test", DATA.fingerprint, {"num_beams": 5, "num_return": 1, "max_new_tokens": 64}, 128),
    training={"examples": {"soluble": 360}},
)
MINE = Card("ada/mine", TRAINED, Tasks([SOLUBLE]), SHAPE, SCORED)


def test_a_model_of_one_own_task_is_described_as_that_and_nothing_else() -> None:
    made = text(MINE)
    assert "trained from random weights for one task, soluble." in made
    assert "| soluble | chemistry | label | `` Is `it` \\| {source}? `` | 90 | 10 | 360 |" in made
    assert "Labels of soluble: `no`, `yes`." in made
    assert "| soluble | roc_auc | 0.7500 | 0.7000 .. 0.8000 | 10 | roc_auc/v1 |  |" in made
    assert "beam search with 5 beams" in made
    assert "Licence of the model: unknown; nobody has stated one." in made
    assert "| csv mine.csv | 100 | unknown |" in made
    assert 'from_pretrained("ada/mine")' in made
    assert not [name for name in shipped().scored if name in made]
    for stranger in ("embedded corpus", "SMILES need not be valid", "f1/v1", "has not been measured"):
        assert stranger not in made


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tasks": None}, "The run folder does not say which tasks were trained."),
        ({"tasks": Tasks(())}, "by span corruption alone: it has not learned to answer"),
        ({"results": None}, "None: these weights have not been evaluated."),
        ({"results": replace(SCORED, data_fingerprint="e" * 16)}, f"On the test split of other data, `{'e' * 16}`"),
        ({"trained": replace(TRAINED, recipe=None)}, "the run's configuration was not at hand"),
        ({"trained": replace(TRAINED, step=5)}, "| steps | 5 of 9 planned |"),
        ({"trained": replace(TRAINED, data=DataFacts("f"))}, "Sources and their licences: unknown"),
        ({"trained": replace(TRAINED, base=Base("t5-small", on_hub=True, revision="a" * 40))},
         "t5-small (revision aaaaaaaaaaaa)"),
        ({"trained": replace(TRAINED, base=Base("first", step=7, data="d", base=Base("t5-small", on_hub=True)))},
         "first (step 7, data `d`), which began with t5-small"),
        ({"trained": replace(TRAINED, data=DataFacts("f", sources=[Source("synthetic", 9)]))}, "no use for chemistry"),
        ({"trained": replace(TRAINED, license="mit")}, "Licence of the model: `mit`."),
    ],
)  # fmt: skip
def test_what_is_not_known_or_not_so_is_said(changes: dict[str, Any], sentence: str) -> None:
    made = text(replace(MINE, **changes))
    assert sentence in made
    assert sentence not in text(MINE)


def test_the_hub_reads_the_metadata() -> None:
    on_the_hub = [replace(DATA.sources[0], hub="ada/solubility", license="cc0-1.0")] if DATA.sources else []
    trained = replace(TRAINED, license="apache-2.0", base=Base("google-t5/t5-small", on_hub=True))
    card = replace(MINE, trained=replace(trained, data=replace(DATA, sources=on_the_hub)))
    data = ModelCard(f"---\n{metadata(card)}\n---\n{text(card)}").data
    assert (data.license, data.library_name, data.base_model) == ("apache-2.0", "transformers", "google-t5/t5-small")
    assert (data.datasets, data.metrics) == (["ada/solubility"], ["roc_auc"])
    assert data.widget[0]["text"] == "Is `it` | CC(=O)Oc1ccccc1C(=O)O?"
    (result,) = data.eval_results
    assert (data.model_name, result.dataset_name, result.dataset_split) == ("mine", "ada/solubility", "test")
    assert (result.metric_value, result.metric_args["low"], result.metric_args["high"]) == (0.75, 0.7, 0.8)
    plain = ModelCard(f"---\n{metadata(replace(MINE, results=None))}\n---\n").data
    assert (plain.license, plain.eval_results, plain.base_model) == ("unknown", None, None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> Path:
    """A run of two of the five tasks, fine-tuned from an exported model of another run."""
    first = export(
        made_run(tmp_path_factory.mktemp("runs") / "first", SHAPE, 3), tmp_path_factory.mktemp("model") / "m"
    )
    run_dir = made_run(tmp_path_factory.mktemp("runs") / "second", SHAPE, 9)
    data = Data(small_data)
    mixture = {"captioning": 1.0, "forward": 3.0}
    table = {"data": {"path": str(small_data), "mixture": mixture}, "model": {"init_from": str(first.model_dir)}}
    (run_dir / "config.toml").write_text(dump(validate(RunConfig, table, "")))
    write_tasks(run_dir, data.tasks.only(mixture))
    record_base(run_dir, base_at(str(first.model_dir)))
    manifest = run_dir / "checkpoints" / step_name(9) / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "data_fingerprint": data.index.fingerprint}))
    return run_dir


def results_of(model_dir: Path, to: Path) -> Path:
    """A results.json for the weights in a folder."""
    score = {"task": "forward", "metric": "top1", "value": 0.5, "low": None, "high": None, "n": 8, "definition": "d"}
    table = {"metrics": [score], "split": "test", "data_fingerprint": "f", "decoding": {}, "max_source_tokens": 9}
    table |= {"model": {"sha256": model_hash(model_dir)}, "training": {"init_from": "/home/ada"}}
    to.parent.mkdir(exist_ok=True)
    to.write_text(json.dumps(table))
    return to


def test_an_export_of_a_run_says_its_tasks_rows_and_lineage_and_names_no_folder(run: Path, tmp_path: Path) -> None:
    made = export(run, tmp_path / "out").model_dir
    card = (made / FILE).read_text()
    assert "for 2 tasks: captioning, forward." in card
    assert "retrosynthesis" not in card
    assert "| began with | first (step 3, data `ffffffffffffffff`) |" in card
    assert "| synthetic | 600 | unknown |" in card
    assert "| mixture, by weight | captioning 1, forward 3 |" in card
    for file in (FILE, "provenance.json", "bigchem.json", "config.json", "tasks.json"):
        assert str(tmp_path.parent) not in (made / file).read_text()
    assert weights_hash(made) == model_hash(made)


def test_scores_are_shown_of_these_weights_alone(run: Path, tmp_path: Path) -> None:
    made = export(run, tmp_path / "out").model_dir
    results = results_of(made, run / "results" / "results.json")
    again = export(run, tmp_path / "again").model_dir
    assert "| forward | top1 | 0.5000 |" in (again / FILE).read_text()
    rounded = export(run, tmp_path / "rounded", bf16=True).model_dir
    assert "these weights have not been evaluated" in (rounded / FILE).read_text()
    with pytest.raises(UserError, match="not the scores of the weights in"):
        take_scores(rounded, results)
    assert after_evaluation(made, results) is None
    assert "| forward | top1 | 0.5000 |" in (made / FILE).read_text()
    assert "/home/ada" not in (made / SCORES).read_text()
    assert after_evaluation(tmp_path, results) is None  # a model of another program


def test_a_card_says_which_tasks_need_canonical_smiles_as_predict_does_not_write_them() -> None:
    assert "canonical" not in text(MINE)
    made = text(replace(MINE, tasks=shipped().only(("captioning", "forward", "retrosynthesis"))))
    assert "It does not rewrite SMILES that are valid." in made
    assert "Give forward and retrosynthesis RDKit's canonical SMILES, with sorted compounds" in made


def test_an_edited_card_stays(run: Path, tmp_path: Path) -> None:
    made = export(run, tmp_path / "out").model_dir
    edited = (made / FILE).read_text().replace("## Limits", "## Known limits")
    (made / FILE).write_text(edited)
    told = after_evaluation(made, results_of(made, tmp_path / "results.json"))
    assert told is not None
    assert "was edited and stays as it is" in told
    assert (made / FILE).read_text() == edited
    write_card(made, overwrite=True)
    assert (made / FILE).read_text() == rendered(made)
    assert "0.5000" in rendered(made)


def test_a_run_without_records_is_not_said_to_have_trained_the_five_tasks(tmp_path: Path) -> None:
    made = export(made_run(tmp_path / "run", SHAPE, 1), tmp_path / "out").model_dir
    card = (made / FILE).read_text()
    assert "does not say which tasks were trained" in card
    assert not [name for name in shipped().scored if f"| {name} |" in card]
    assert provenance.read(made) is not None
