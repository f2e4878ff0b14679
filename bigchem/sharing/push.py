"""`bigchem push`: a model's folder to a repository of the Hugging Face hub, in one commit.

Only named kinds of files are sent. A folder that is incomplete, or whose data are private, is refused first.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigchem.base import json_file
from bigchem.base.errors import UserError
from bigchem.base.printable import one_line
from bigchem.base.progress import Progress, amount
from bigchem.evaluate.trained import FILE as PROVENANCE
from bigchem.sharing import card as cards
from bigchem.sharing.contents import Card
from bigchem.tasks import FILE as TASKS
from bigchem.train.checkpoint.store import PROOF

INDEX = "model.safetensors.index.json"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_SENT = {
    *("config.json", "generation_config.json", INDEX, TASKS, PROOF, PROVENANCE, cards.SCORES, "LICENSE"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model"),
}
PRIVATE = "private"
"""The licence of a source that must not be public."""


@dataclass(frozen=True)
class Sent:
    """A file to send, and its size. content: instead of the folder's, None: that."""

    name: str
    size: int
    content: bytes | None = None


@dataclass(frozen=True)
class Push:
    """What would be sent. stays: names of what else is in the folder. problems: of the card, for its author."""

    folder: Path
    repo: str
    files: list[Sent]
    stays: list[str]
    problems: list[str]
    card: Card


def plan(folder: Path, repo: str) -> Push:
    """What `send` would send. UserError for an unfinished or damaged folder, or a name that the hub does not take."""
    _check_name(repo)
    weights = _weights(folder)
    card = cards.card_of(folder, repo)
    edited = cards.is_edited(folder)
    content = (folder / cards.FILE).read_bytes() if edited else cards.rendered(folder, repo).encode()
    names = sorted(path.name for path in folder.iterdir())
    found = [name for name in names if name in weights or name in _SENT]
    sent = [Sent(name, (folder / name).stat().st_size) for name in found]
    stays = [name for name in names if name not in found and name != cards.FILE]
    noted = problems(card) + (["the card was edited: it is sent as it is"] if edited else [])
    files = [Sent(cards.FILE, len(content), None if edited else content), *sent]
    return Push(folder, repo, files, stays, noted, card)


def problems(card: Card) -> list[str]:
    """What a reader of the card will miss."""
    trained, found = card.trained, []
    if trained.license is None:
        found.append("the model's licence is unknown: bigchem card MODEL --license ID states it")
    sources = trained.data.sources
    if sources is None:
        found.append("the data's sources are unknown, as the data was not at hand at the export")
    elif without := [source.name for source in sources if source.license is None]:
        names = ", ".join(dict.fromkeys(without))
        found.append(f"no licence of {names}: add `license` to the recipe, then data build and export again")
    if card.results is None:
        found.append("no scores: bigchem evaluate adds them")
    return found


def check(push: Push, *, private: bool, unknown_data: bool = False, dry_run: bool = False) -> None:
    """UserError if the model must not be public, or if there is no token to send it with. unknown_data: its data, or
    those of a model it began with, may be public although nothing says what they are."""
    from huggingface_hub import get_token

    if not private:
        _check_data(push, unknown_data)
    if not dry_run and get_token() is None:
        raise UserError("no token for the hub", push.repo, "hf auth login, or set HF_TOKEN to one that may write")


def send(push: Push, *, private: bool, progress: Progress) -> str:
    """Makes the repository if there is none and sends the files. Returns its address. UserError if the hub refuses."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(library_name="bigchem")
    try:
        address = str(api.create_repo(push.repo, private=private, exist_ok=True))
        if private and not api.model_info(push.repo).private:
            hint = "choose another name, or make it private at the hub"
            raise UserError("the repository exists and is public", push.repo, hint)
        progress.say(f"sending {amount(sum(file.size for file in push.files))} to {address}")
        api.create_commit(
            push.repo,
            [CommitOperationAdd(file.name, file.content or push.folder / file.name) for file in push.files],
            commit_message=f"{push.card.trained.run}, step {push.card.trained.step}, by bigchem",
        )
    except HfHubHTTPError as error:
        raise _refusal(error, push.repo) from None
    except ValueError as error:
        raise UserError(f"the hub does not take the card: {one_line(error)}", push.repo, "correct README.md") from None
    except Exception as error:
        if not _is_of_the_network(error):
            raise
        raise UserError(f"{ENDPOINT} cannot be reached: {one_line(error)}", push.repo, "try again") from None
    return address


def _check_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"not a name of the hub: {one_line(error)}", repo, "write OWNER/NAME") from None
    if "/" not in repo:
        raise UserError(
            "the owner is missing", repo, f"write OWNER/{repo}: your name or your organisation's at the hub"
        )


def _check_data(push: Push, unknown_data: bool) -> None:
    """UserError for private sources, or unknown ones, of the model or of a bigchem run that it began with."""
    trained = push.card.trained
    bases = [] if trained.base is None else [base for base in trained.base.chain() if base.data is not None]
    found = [(trained.run, trained.data.sources), *((base.name, base.sources) for base in bases)]
    secret = [
        f"{source.name} ({run})" for run, sources in found for source in sources or [] if source.license == PRIVATE
    ]
    if secret:
        raise UserError(f"trained on data whose licence is `private`: {', '.join(secret)}", push.repo, "add --private")
    unknown = [run for run, sources in found if sources is None]
    if unknown and not unknown_data:
        what = f"nothing says what {' and '.join(unknown)} was trained on: its data may be private"
        raise UserError(what, push.repo, "add --private, or --unknown-data if its data may be public")


def _weights(folder: Path) -> set[str]:
    """Names of the weights. UserError unless they are those of the folder's proof."""
    again = "bigchem export makes the folder anew"
    if folder.name.endswith(".partial") or (folder / "unfinished.json").exists():
        raise UserError("an export is not finished here", str(folder), "repeat the export: it resumes")
    try:
        proof = json_file.load_object(folder / PROOF).get("files")
        proven = json_file.as_kind(dict[str, tuple[int, str]], proof, str(folder / PROOF), hint=again)
    except FileNotFoundError:
        raise UserError(
            f"no {PROOF}: not exported by bigchem", str(folder), "give a run or an exported model"
        ) from None
    found = {path.name: path.stat().st_size for path in folder.iterdir() if _WEIGHTS.fullmatch(path.name)}
    if not found:
        raise UserError("no weights here: model.safetensors is missing", str(folder), again)
    if found != {name: size for name, (size, _) in proven.items()}:
        raise UserError(f"the weights are not those that {PROOF} lists", str(folder), again)
    return set(found)


def _refusal(error: Any, repo: str) -> UserError:
    status = getattr(error.response, "status_code", None)
    if status in (401, 403):
        return UserError("the hub does not let this token write here", repo, "hf auth whoami; use a token of its owner")
    return UserError(f"the hub refused: {one_line(error)}", repo, "try again")


def _is_of_the_network(error: BaseException) -> bool:
    """Whether the hub's HTTP client, which is not the same in all versions, or the system could not connect."""
    return isinstance(error, OSError) or any(kind.__name__ == "TransportError" for kind in type(error).__mro__)
