"""Tasks are records: read from TOML, carried by data and models, and named nowhere in the code."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bigchem
from bigchem.base.errors import UserError
from bigchem.tasks import (
    RESERVED,
    SPANS,
    Task,
    TaskConfig,
    Tasks,
    merged,
    read_records,
    shipped,
    tasks_of,
    write_tasks,
)

PACKAGE = Path(bigchem.__file__).parent
NAMED = {"data/sources/synthetic/corpus.py"}
"""Modules that name tasks: the corpus that makes rows of the five."""


def of(**fields: object) -> Task:
    return Task.of("x", TaskConfig.model_validate({"source": "chemistry", "target": "text", **fields}))


def test_the_five_are_what_they_were_before_they_were_a_file() -> None:
    assert {
        name: (task.id, task.source_domain, task.target_domain, task.headline) for name, task in shipped().items()
    } == {
        "captioning": (0, "chemistry", "text", "bleu4"),
        "generation": (1, "text", "chemistry", "exact"),
        "forward": (2, "reactants", "chemistry", "top1"),
        "retrosynthesis": (3, "chemistry", "reactants", "top1"),
        "actions": (4, "text", "text", "bleu2"),
        "text_spans": (5, "text", "text", "loss"),
        "smiles_spans": (6, "chemistry", "chemistry", "loss"),
    }
    assert [task.only_prompt for task in shipped().scored.values()] == [
        "Caption the following SMILES: ",
        "Write in SMILES the described molecule: ",
        "Predict the product of the following reaction: ",
        "Predict the reaction that produces the following product: ",
        "Which actions are described in the following paragraph: ",
    ]
    assert [name for name, task in shipped().items() if task.cross_domain] == ["captioning", "generation"]


def test_no_module_names_a_task() -> None:
    """The forward pass of a network is another word: model/, bench/model/ and the engine's phases."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name in NAMED or name.startswith(("model/", "bench/model/", "train/engine.py", "_shipped/")):
            continue
        tree = ast.parse(path.read_text())
        names = {id(n) for n in ast.walk(tree) if isinstance(n, ast.Constant) and n.value in shipped().scored}
        found += [name] * bool(names)
    assert found == []


prompts = st.lists(st.sampled_from(["a", " ", "{{", "}}", "{source}", "{t}", "<S>", "é"]), max_size=6).map("".join)


@given(prompts, st.text(max_size=20))
def test_a_prompt_has_the_source_once_and_gives_it_back(prompt: str, source: str) -> None:
    if prompt.count("{source}") > 1:
        with pytest.raises(ValueError, match="times"):
            of(prompt=prompt)
        return
    task = of(prompt=prompt)
    text = task.prompted(source, {"t": "25"})
    assert source in text
    assert ("25" in text) or "{t}" not in prompt
    if task.only_prompt:
        assert text == task.only_prompt + source
        assert task.unprompted(text) == source


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "a { b"}, "brace"),
        ({"prompt": "a {} b"}, "is no column"),
        ({"prompt": "a {x:3} b"}, "is no column"),
        ({"target": "label"}, "needs labels"),
        ({"target": "label", "labels": ["a", "a"]}, "needs labels"),
        ({"labels": ["a", "b"]}, "labels is for"),
        ({"decimals": 2}, "decimals is for"),
        ({"source": "smiles"}, "chemistry"),
    ],
)
def test_a_contradiction_in_a_record_is_refused_with_its_place(
    fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    record = {"source": "chemistry", "target": "text", **fields}
    file = tmp_path / "tasks.toml"
    file.write_text("[tasks.x]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in record.items()))
    with pytest.raises(UserError, match=message) as refused:
        read_records(file)
    assert str(file) in str(refused.value)
    assert "tasks.x" in str(refused.value)


names = st.text(alphabet="abcxyz_-0", min_size=1, max_size=8).map("t".__add__)


@given(st.lists(names, unique=True, max_size=8), st.data())
def test_an_id_depends_on_the_name_alone(listed: list[str], data: st.DataObject) -> None:
    record = TaskConfig.model_validate({"source": "text", "target": "text"})
    every = merged(dict.fromkeys(listed, record))
    some = data.draw(st.lists(st.sampled_from(listed), unique=True)) if listed else []
    fewer = merged(dict.fromkeys(some, record))
    assert {name: fewer[name].id for name in some} == {name: every[name].id for name in some}
    assert all(every[name].id >= RESERVED for name in listed)
    assert list(every)[:5] == list(shipped())[:5]
    assert list(every)[-2:] == list(SPANS)


def test_a_record_that_replaces_one_of_the_five_keeps_its_order_of_rows() -> None:
    record = TaskConfig.model_validate({"source": "chemistry", "target": "text", "prompt": "Describe: "})
    assert merged({"captioning": record})["captioning"].id == 0
    with pytest.raises(UserError, match="for span corruption"):
        merged({"text_spans": record})
    with pytest.raises(UserError, match="'captioning' and 'x' have the id 0"):
        merged({"x": record.model_copy(update={"id": 0})})


def test_tasks_come_back_from_a_folder_and_from_json(tmp_path: Path) -> None:
    record = {
        "source": "chemistry",
        "target": "label",
        "labels": ["no", "yes"],
        "prompt": ["Toxic? ", "Is <S> {source} </S> toxic at {dose} mg?"],
        "metrics": ["mcc"],
    }
    tasks = merged({"toxic": TaskConfig.model_validate(record)})
    write_tasks(tmp_path, tasks)
    assert dict(tasks_of(tmp_path)) == dict(tasks)
    assert tasks["toxic"].fields == ("dose",)
    assert (tasks["toxic"].headline, tasks["toxic"].family) == ("mcc", "label")
    assert tasks_of(tmp_path / "of another program") is shipped()


@pytest.mark.parametrize("fields", [{"metrics": ["number", "within_one"]}, {"headline": "number"}, {}])
def test_the_name_of_a_family_stands_for_its_headline(fields: dict[str, object]) -> None:
    assert of(target="number", **fields).headline == "rmse"


def test_the_family_of_metrics_follows_from_the_domains() -> None:
    families = {
        ("chemistry", "text"): "caption",
        ("text", "chemistry"): "molecule",
        ("protein", "chemistry"): "molecule",
        ("reactants", "chemistry"): "reaction",
        ("chemistry", "reactants"): "reaction",
        ("chemistry", "chemistry"): "reaction",
        ("text", "text"): "text",
        ("reaction", "text"): "text",
        ("chemistry", "number"): "number",
        ("reactants", "reagents"): "reagents",
    }
    assert {pair: of(source=pair[0], target=pair[1]).family for pair in families} == families


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"(?s)unknown task 'foward'.*did you mean 'forward'"):
        shipped().find("foward")
    with pytest.raises(UserError, match="unknown task 'text_spans'"):
        shipped().labelled("text_spans")
    assert Tasks.from_json(shipped().to_json(), "x") == shipped()
