"""What `bigchem predict` reads and prints."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import TextIOWrapper
from typing import Any, BinaryIO, TextIO

from rich.table import Table

from bigchem.base.errors import UserError
from bigchem.base.printable import markup, one_line
from bigchem.chemistry import REPAIRS, NotationError, read
from bigchem.data.reading.json_records import DuplicateKeyError, parse
from bigchem.data.sources.sides import is_unicode
from bigchem.evaluate.generation.label_scores import LABEL_SCORES, has_labels, most_probable
from bigchem.evaluate.generation.predictor import Prediction
from bigchem.tasks import CHEMISTRY, Task

_JSON = re.compile(r'\{\s*["}]')
"""The start of a JSON object, which chemistry texts hardly have: `{4-[...]phenyl}` is a source."""

_MADE = ("predictions", "log_probabilities", "scores", "valid")
_OF_LABELS = (LABEL_SCORES, "labels")


def lines_of(stream: BinaryIO) -> TextIO:
    """The lines of a UTF-8 stream. Invalid bytes are kept, so that read_inputs can name their line."""
    return TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape")


def read_inputs(
    given: Sequence[str], stdin: Iterable[str], task: Task, noticed: Counter[str] | None = None
) -> Iterator[dict[str, Any]]:
    """One record with a `source` per input; the argument `-` stands for the lines of stdin.

    An input that begins with `{"` is a JSON object with a "source", whose other fields are kept; anything else is a
    source. Empty lines are skipped. Sources are read by chemistry.read, which drops a name after SMILES; repairs are
    counted in `noticed`. UserError with the line if a source is not valid for the task, or if `to_json` would replace
    another field.
    """
    noticed = Counter() if noticed is None else noticed
    for argument in given:
        if argument != "-":
            yield _record(argument, f"input {argument[:40]!r}", task, noticed)
            continue
        for number, line in enumerate(stdin, 1):
            if text := line.strip():
                yield _record(text, f"stdin:{number}", task, noticed)


def to_json(
    record: dict[str, Any], predictions: list[Prediction], task: Task, scores: Sequence[float] | None = None
) -> str:
    """One line of JSON: the record, then predictions (texts, best first), log_probabilities, scores and valid, as in
    Prediction. scores: the label_scores of a task with labels, which follow, by label and as a list. `bigchem score`
    reads it if the record has a "target".
    """
    made: dict[str, Any] = {
        "predictions": [prediction.text for prediction in predictions],
        "log_probabilities": [round(prediction.log_probability, 4) for prediction in predictions],
        "scores": [round(prediction.score, 4) for prediction in predictions],
        "valid": [prediction.valid for prediction in predictions],
    }
    if scores is not None:
        made[LABEL_SCORES] = [round(score, 6) for score in scores]
        made["labels"] = dict(zip(task.labels, made[LABEL_SCORES], strict=True))
    return json.dumps({**record, **made}, ensure_ascii=False)


def replaced(record: Mapping[str, Any], task: Task) -> str | None:
    """The first field of a record that `to_json` would replace; None if there is none."""
    made = (*_MADE, *(_OF_LABELS if has_labels(task) else ()))
    return next((name for name in made if name in record), None)


def table(records: Sequence[dict[str, Any]], predicted: Sequence[list[Prediction]]) -> Table:
    """The predictions as a terminal table, a section per input."""
    out = Table("input", "rank", "log p", "per token", "SMILES", "prediction")
    for record, predictions in zip(records, predicted, strict=True):
        for rank, prediction in enumerate(predictions, 1):
            mark = {True: "valid", False: "invalid", None: ""}[prediction.valid]
            cells = (markup(record["source"]) if rank == 1 else "", str(rank), f"{prediction.log_probability:.2f}")
            last = rank == len(predictions)
            out.add_row(*cells, f"{prediction.score:.3f}", mark, markup(prediction.text), end_section=last)
    return out


def label_table(task: Task, records: Sequence[dict[str, Any]], scores: Sequence[Sequence[float]]) -> Table:
    """A terminal table of the most probable labels of each input; of several labels, of the probability of 1."""
    out = Table("input", "label", "probability" if task.target_domain == "label" else "probability of 1")
    for record, own in zip(records, scores, strict=True):
        listed = most_probable(task, own)
        for number, (label, share) in enumerate(listed.items(), 1):
            cells = (markup(record["source"]) if number == 1 else "", markup(label), f"{share:.3f}")
            out.add_row(*cells, end_section=number == len(listed))
    return out


def _record(text: str, where: str, task: Task, noticed: Counter[str]) -> dict[str, Any]:
    record = _object(text, where)
    if (taken := replaced(record, task)) is not None:
        raise UserError(f"the field '{taken}' is what predict writes", where, "rename or remove it")
    if not is_unicode(json.dumps(record, ensure_ascii=False)):
        raise UserError("not UTF-8, or half of a surrogate pair", where, "write it as UTF-8")
    try:
        reading = read(record["source"], task.source_domain, names=True)
    except NotationError as error:
        smiles = task.source_domain in CHEMISTRY
        takes = "SMILES: correct this input, or remove it" if smiles else f"a {task.source_domain}"
        raise UserError(f"{error}", where, f"{task.name} takes {takes}") from None
    if lacking := [name for name in task.fields if not str(record.get(name, "")).strip()]:
        example = json.dumps({"source": reading.text, **dict.fromkeys(task.fields, "...")}, ensure_ascii=False)
        raise UserError(f"the prompt of {task.name} needs '{lacking[0]}'", where, f"write {example}")
    noticed.update(REPAIRS[name] for name in reading.repairs)
    return {**record, "source": reading.text}


def _object(text: str, where: str) -> dict[str, Any]:
    if not _JSON.match(text):
        return {"source": text}
    hint = 'write {"source": "..."}, or the source itself'
    try:
        record = parse(text)
    except DuplicateKeyError as error:
        raise UserError(str(error), where, "keep one of the two") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON: {one_line(error)}", where, hint) from None
    if not isinstance(record.get("source"), str):
        raise UserError("'source' must be a string", where, hint)
    return dict(record)
