"""The HTTP API beside the page: `POST /predict` and `GET /tasks`, in JSON. docs/evaluation.md has an example."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field

from bigchem.base import json_file
from bigchem.base.json_file import RecordError
from bigchem.evaluate.generation.inputs import replaced, to_json
from bigchem.evaluate.generation.predictor import Predictor
from bigchem.evaluate.serve.asking import (
    AT_ONCE,
    MOST_BEAMS,
    MOST_CHARACTERS,
    MOST_SHOWN,
    WAITING,
    RefusedError,
    predict,
    read_source,
)
from bigchem.tasks import Task, Tasks

MOST_INPUTS = 32
"""Inputs of a request."""
MOST_BYTES = 1 << 18
"""Bytes of a request's body: as many inputs of the usual length, each several times."""

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """The body of `POST /predict`. inputs: texts, or objects with `source` and what else the task's prompts take."""

    task: str
    inputs: Annotated[list[str | dict[str, str]], Field(min_length=1, max_length=MOST_INPUTS)]
    num_return: Annotated[int, Field(ge=1, le=MOST_SHOWN)] = 1
    num_beams: Annotated[int, Field(ge=1, le=MOST_BEAMS)] = 5

    __pydantic_config__ = ConfigDict(extra="forbid")


def answer(predictor: Predictor, content: bytes) -> dict[str, Any]:
    """The answer to a request: per input a line of `bigchem predict --json`. RefusedError for any other content."""
    try:
        request = json_file.as_kind(Request, json_file.parse(content, "body"), "body")
    except RecordError as error:
        raise RefusedError(400, str(error.what)) from None
    if request.task not in predictor.tasks:
        raise RefusedError(400, f"no such task; GET /tasks lists them: {', '.join(predictor.tasks)}")
    task = predictor.tasks[request.task]
    records = [_record(task, given, number) for number, given in enumerate(request.inputs)]
    predictions, scores = predict(predictor, task, records, request.num_beams, request.num_return)
    made = [
        json.loads(to_json(record, best, task, scores[number] if scores else None))
        for number, (record, best) in enumerate(zip(records, predictions, strict=True))
    ]
    return {"task": task.name, "results": made}


def tasks_table(tasks: Tasks) -> dict[str, Any]:
    """The answer to `GET /tasks`: what each task takes and gives, and the limits."""
    listed = {
        task.name: {
            "source": task.source_domain,
            "target": task.target_domain,
            "columns": list(task.fields),
            "labels": list(task.labels),
        }
        for task in tasks.values()
    }
    limits = {"inputs": MOST_INPUTS, "characters": MOST_CHARACTERS, "num_return": MOST_SHOWN, "num_beams": MOST_BEAMS}
    return {"tasks": listed, "limits": limits}


class Queue:
    """Runs a few requests at a time, in threads; further ones wait, up to a number, in the order they came."""

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        self._most, self._here = at_once + waiting, 0
        self._turns = asyncio.Semaphore(at_once)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`. RefusedError at once if too many wait."""
        if self._here >= self._most:
            raise RefusedError(503, "Busy: try again later.")
        self._here += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work)
        finally:
            self._here -= 1


def application(predictor: Predictor) -> Any:
    """A FastAPI application with the API alone. Browsers cannot send it requests from other sites' pages: those need
    `application/json`, for which they would ask permission, which nobody gives."""
    from fastapi import FastAPI
    from starlette.requests import Request as HTTPRequest
    from starlette.responses import JSONResponse

    app, queue = FastAPI(openapi_url=None), Queue()

    async def on_predict(request: HTTPRequest) -> JSONResponse:
        try:
            content = await _body(request)
            return JSONResponse(await queue.run(lambda: answer(predictor, content)))
        except RefusedError as error:
            later = {"Retry-After": "10"} if error.status == 503 else {}
            return JSONResponse({"error": str(error)}, error.status, headers=later)

    def on_tasks(request: HTTPRequest) -> JSONResponse:
        return JSONResponse(tasks_table(predictor.tasks))

    app.add_route("/predict", on_predict, methods=["POST"])
    app.add_route("/tasks", on_tasks, methods=["GET"])
    return app


async def _body(request: Any) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RefusedError(415, "Send Content-Type: application/json.")
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise RefusedError(413, f"The limit is {MOST_BYTES:,} bytes.")
    return content


def _record(task: Task, given: str | Mapping[str, str], number: int) -> dict[str, str]:
    """An input as the task reads it: its source, and the columns of the prompts."""
    record = {"source": given} if isinstance(given, str) else given
    if (taken := replaced(record, task)) is not None:
        raise RefusedError(400, f"inputs[{number}]: '{taken}' is a field of the answer.")
    if missing := [name for name in ("source", *task.fields) if not record.get(name, "").strip()]:
        raise RefusedError(400, f"inputs[{number}] lacks {', '.join(missing)}.")
    if (longest := max(map(len, record.values()))) > MOST_CHARACTERS:
        raise RefusedError(413, f"inputs[{number}] has {longest:,} characters: the limit is {MOST_CHARACTERS:,}.")
    try:
        return {**record, "source": read_source(task, record["source"].strip()).text}
    except RefusedError as error:
        raise RefusedError(error.status, f"inputs[{number}]: {error}") from None
