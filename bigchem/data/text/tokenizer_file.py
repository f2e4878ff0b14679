"""Where a tokenizer.json is read from: a folder, or a model's name at huggingface.co."""

from __future__ import annotations

from pathlib import Path

import tokenizers

from bigchem.base.errors import UserError


def read(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer.json of a folder. UserError if there is none, or if it cannot be parsed."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError("no tokenizer here: no such file", str(file), "give a folder that holds a tokenizer.json")
    try:
        return tokenizers.Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises bare Exception for whatever it cannot parse
        raise UserError(f"cannot read: {error}", str(file)) from error


def fetched(name: str) -> Path:
    """The folder of that name, or one that has the tokenizer.json of the model of that name.

    UserError if it is neither: also offline, where the model was never fetched.
    """
    if Path(name).is_dir() or Path(name).is_absolute() or name.startswith("."):
        return Path(name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, "tokenizer.json")).parent
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"no such folder, and not to be had from huggingface.co ({type(error).__name__})",
            name,
            "give a folder that holds T5's tokenizer.json; or, where there is internet: hf download t5-base "
            "tokenizer.json --local-dir FOLDER",
        ) from error
