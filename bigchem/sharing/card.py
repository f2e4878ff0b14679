"""Writes a model folder's README.md from what lies in the folder, and rewrites it when the model is evaluated.

provenance.json    what was trained: by the export
scores.json        what the card shows of a results.json: by the export, an evaluation or `bigchem card --scores`
README.md          the card; its last line has the hash of the text, so that an edited one is left alone
"""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from bigchem.base import atomic, json_file
from bigchem.base.errors import UserError
from bigchem.base.json_file import RecordError
from bigchem.evaluate.trained import FILE as PROVENANCE
from bigchem.model.weights.hf_config import read_shape
from bigchem.sharing import provenance, readme
from bigchem.sharing.contents import Card, Results
from bigchem.sharing.metadata import metadata
from bigchem.sharing.provenance import weights_hash
from bigchem.tasks import FILE as TASKS
from bigchem.tasks import tasks_of

FILE, SCORES = "README.md", "scores.json"
_SEAL = "<!-- by bigchem, {}: an evaluation rewrites this card unless it was edited -->\n"


def write_card(model_dir: Path, name: str | None = None, *, overwrite: bool = False) -> None:
    """Writes the card; name: see `rendered`. UserError if somebody has edited it, unless `overwrite`."""
    if is_edited(model_dir) and not overwrite:
        hint = f"bigchem card {model_dir} --overwrite writes it anew"
        raise UserError("was edited and stays as it is", str(model_dir / FILE), hint)
    atomic.write_atomically(model_dir / FILE, rendered(model_dir, name))


def rendered(model_dir: Path, name: str | None = None) -> str:
    """The card of an exported model. name: what the snippet loads; default: the folder's."""
    card = card_of(model_dir, name)
    body = f"---\n{metadata(card)}\n---\n\n{readme.text(card)}\n"
    return body + _seal(body)


def is_edited(model_dir: Path) -> bool:
    """Whether the folder has a card that is not as bigchem wrote it."""
    file = model_dir / FILE
    if not file.is_file():
        return False
    body, _, _ = (text := file.read_text(encoding="utf-8", errors="replace")).rpartition(_SEAL.partition("{")[0])
    return text != body + _seal(body)


def after_evaluation(model_dir: Path, results: Path) -> str | None:
    """Puts scores into the card of the model that they are of. Returns what to tell the user if that was not possible;
    None also for models of other programs, which have no card of ours."""
    try:
        if provenance.read(model_dir) is not None:
            take_scores(model_dir, results)
            write_card(model_dir)
    except UserError as error:  # the results are written: no reason to fail
        return f"the scores are not in the model's card: {error}"
    return None


def take_scores(model_dir: Path, results: Path) -> None:
    """Puts what the card shows of a results.json beside it. UserError unless the results are of these very weights."""
    found = results_in(results)
    if found.model.get("sha256") != weights_hash(model_dir):
        hint = f"bigchem evaluate {model_dir} --data FOLDER"
        raise UserError(f"these are not the scores of the weights in {model_dir}", str(results), hint)
    examples = (found.training or {}).get("examples")
    kept = replace(
        found, model={"sha256": found.model["sha256"]}, training={"examples": examples} if examples else None
    )
    atomic.write_atomically(model_dir / SCORES, json.dumps(asdict(kept), indent=1, ensure_ascii=False))


def results_in(file: Path) -> Results:
    """What a card shows of a results.json. RecordError if it is damaged; OSError if it is missing."""
    return json_file.as_kind(Results, json_file.load(file), str(file))


def card_of(model_dir: Path, name: str | None = None) -> Card:
    """What the card of a folder is made of. UserError if the folder was not exported by bigchem."""
    trained = provenance.read(model_dir)
    if trained is None:
        hint = "give a folder made by bigchem export"
        raise UserError(f"does not say what was trained: {PROVENANCE} is missing", str(model_dir), hint)
    tasks = tasks_of(model_dir).scored if (model_dir / TASKS).is_file() else None
    return Card(name or model_dir.resolve().name, trained, tasks, read_shape(model_dir), _scores(model_dir))


def state_license(model_dir: Path, license_id: str) -> None:
    """Records the model's licence, as stated by whoever shares it."""
    replace(card_of(model_dir).trained, license=license_id).write(model_dir)


def _scores(model_dir: Path) -> Results | None:
    """The scores in a folder; None if there are none, or if its weights are others since."""
    try:
        found = results_in(model_dir / SCORES)
    except (OSError, RecordError):
        return None
    return found if found.model.get("sha256") == weights_hash(model_dir) else None


def _seal(body: str) -> str:
    return _SEAL.format(hashlib.sha256(body.encode()).hexdigest()[:16])
