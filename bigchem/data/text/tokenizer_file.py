"""Reading a tokenizer.json from a folder or by a model's name at huggingface.co."""

from __future__ import annotations

from pathlib import Path

import tokenizers

from bigchem.base import git_lfs
from bigchem.base.errors import UserError


def read(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer in a folder's tokenizer.json. UserError if there is none or it cannot be parsed."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError("no tokenizer here: no such file", str(file), "give a folder with a tokenizer.json")
    git_lfs.refuse_pointer(file)
    try:
        return tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception when it cannot parse
        raise UserError(f"cannot read: {error}", str(file)) from error


def fetched(name: str) -> Path:
    """The folder of that name, or a folder with the tokenizer.json of the model of that name.

    UserError if it is neither; also if offline and the model was never fetched.
    """
    if Path(name).is_dir() or Path(name).is_absolute() or name.startswith("."):
        return Path(name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "tokenizer.json")).parent
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"no such folder, and not available from huggingface.co ({type(error).__name__})",
            name,
            "give a folder with T5's tokenizer.json; or, where there is internet: hf download t5-base "
            "tokenizer.json --local-dir FOLDER",
        ) from error
