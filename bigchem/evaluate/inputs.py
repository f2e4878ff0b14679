"""What `bigchem predict` reads and prints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.table import Table

from bigchem.errors import UserError
from bigchem.evaluate.predictor import Prediction
from bigchem.printable import markup


def read_inputs(given: Sequence[str], stdin: Iterable[str]) -> Iterator[dict[str, Any]]:
    """One record with a `source` for each input; an argument `-` stands for the lines of stdin.

    An input that begins with `{` is a JSON object with a "source", whose other fields are kept; any other is a source
    itself. Empty lines are left out. UserError with the line for what is neither.
    """
    for argument in given:
        if argument != "-":
            yield _record(argument, f"input {argument[:40]!r}")
            continue
        for number, line in enumerate(stdin, 1):
            if text := line.rstrip("\r\n"):
                yield _record(text, f"stdin:{number}")


def to_json(record: dict[str, Any], predictions: list[Prediction]) -> str:
    """One line of JSON: the record, then predictions (texts, best first), log_probabilities, scores and valid, as in
    Prediction.

    `bigchem score` reads such lines where the records have a "target".
    """
    made = {
        "predictions": [one.text for one in predictions],
        "log_probabilities": [round(one.log_probability, 4) for one in predictions],
        "scores": [round(one.score, 4) for one in predictions],
        "valid": [one.valid for one in predictions],
    }
    return json.dumps({**record, **made}, ensure_ascii=False)


def table(records: Sequence[dict[str, Any]], predicted: Sequence[list[Prediction]]) -> Table:
    """The predictions for a terminal, a section per input."""
    out = Table("input", "rank", "log p", "per token", "SMILES", "prediction")
    for record, predictions in zip(records, predicted, strict=True):
        for rank, one in enumerate(predictions, 1):
            mark = {True: "valid", False: "invalid", None: ""}[one.valid]
            cells = (markup(record["source"]) if rank == 1 else "", str(rank), f"{one.log_probability:.2f}")
            last = rank == len(predictions)
            out.add_row(*cells, f"{one.score:.3f}", mark, markup(one.text), end_section=last)
    return out


def _record(text: str, where: str) -> dict[str, Any]:
    if not text.startswith("{"):
        return {"source": text}
    hint = 'write {"source": "..."}, or the source itself'
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"not JSON: {error}", where, hint) from None
    if not isinstance(record.get("source"), str):
        raise UserError("'source' has to be a string", where, hint)
    return dict(record)
