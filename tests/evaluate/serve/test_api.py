"""The API of `bigchem serve`: answers, limits, the queue. test_page.py asks it over HTTP where gradio is installed."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from bigchem.evaluate.generation.predictor import Predictor
from bigchem.evaluate.serve import api
from bigchem.evaluate.serve.asking import RefusedError
from bigchem.tasks import TaskConfig, merged, shipped


@pytest.fixture(scope="module")
def predictor(model_dir: Path) -> Predictor:
    return Predictor(model_dir)


def asked(predictor: Predictor, **body: Any) -> Any:
    return api.answer(predictor, json.dumps(body).encode())


def test_an_answer_has_a_line_of_predict_for_each_input(predictor: Predictor) -> None:
    found = asked(predictor, task="captioning", inputs=["CCO ethanol", "c1ccccc1"], num_return=2, num_beams=2)
    assert [one["source"] for one in found["results"]] == ["CCO", "c1ccccc1"]
    assert all(len(one[key]) == 2 for one in found["results"] for key in ("predictions", "log_probabilities", "scores"))
    table = api.tasks_table(predictor.tasks)
    assert table["tasks"]["forward"] == {"source": "reactants", "target": "chemistry", "columns": [], "labels": []}
    assert table["limits"]["inputs"] == 32


class Unasked:
    """A model that nobody may reach."""

    tasks = merged({"own": TaskConfig(source="text", target="text", prompt="{solvent}: ")})


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ("[]", 400, "should be"),
        ("{", 400, "not JSON"),
        ('{"task": "own", "inputs": [{"source": "a", "solvent": "b", "scores": "c"}]}', 400, "field of the answer"),
        ('{"task": "captioning"}', 400, "'inputs' is missing"),
        ('{"task": "captioning", "inputs": []}', 400, "at least 1"),
        ('{"task": "captioning", "inputs": ["C"], "num_return": 11}', 400, "'num_return' = 11"),
        ('{"task": "captioning", "inputs": ["C"], "temperature": 1}', 400, "temperature"),
        ('{"task": "nothing", "inputs": ["C"]}', 400, "no such task; GET /tasks lists them: captioning"),
        ('{"task": "captioning", "inputs": ["C", "C("]}', 400, "inputs[1]: Not SMILES"),
        ('{"task": "captioning", "inputs": ["C", " "]}', 400, "inputs[1] lacks source"),
        ('{"task": "own", "inputs": ["stirred"]}', 400, "inputs[0] lacks solvent"),
        (json.dumps({"task": "captioning", "inputs": ["C" * 4001]}), 413, "4,001 characters"),
        (json.dumps({"task": "captioning", "inputs": ["C"] * 33}), 400, "at most 32"),
    ],
)
def test_what_is_not_a_request_is_refused_before_the_model(body: str, status: int, why: str) -> None:
    with pytest.raises(RefusedError) as refused:
        api.answer(Unasked(), body.encode())  # type: ignore[arg-type]
    assert refused.value.status == status
    assert why in str(refused.value)
    assert "captioning" in shipped()


def test_a_few_run_at_a_time_some_wait_and_the_next_is_refused() -> None:
    most, running, lock, go = 0, 0, threading.Lock(), threading.Event()

    def work() -> int:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        go.wait(10)
        with lock:
            running -= 1
        return most

    async def ask() -> list[object]:
        queue = api.Queue(at_once=2, waiting=3)
        tasks = [asyncio.create_task(queue.run(work)) for _ in range(6)]
        await asyncio.sleep(0.1)
        go.set()
        found: list[object] = await asyncio.gather(*tasks, return_exceptions=True)
        assert await queue.run(lambda: 7) == 7
        return found

    found = asyncio.run(ask())
    assert most == 2
    assert [str(one) for one in found if isinstance(one, RefusedError)] == ["Busy: try again later."]
    assert sum(isinstance(one, int) for one in found) == 5
