"""Models by name: a folder, or a Hugging Face hub repository, fetched once into the cache. Needs no torch."""

from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.base.printable import one_line

SMALL = ["config.json", "generation_config.json", "tokenizer*.json", "special_tokens_map.json", "spiece.model"]
SAFETENSORS = ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
PICKLES = ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"]


def is_path(name: str) -> bool:
    """Whether a model's name is a path: one that exists or looks like one (`./x`, `/x`, `~/x`, `a/b/c`)."""
    return not name or name[0] in "./~" or name.count("/") > 1 or Path(name).exists()


def fetched(name: str, *, weights: bool = True) -> Path:
    """A model's folder: a path unchanged, or its folder in the hub's cache (HF_HOME), with missing files fetched.

    weights: also safetensors, or pytorch_model.bin if there are none. Offline (HF_HUB_OFFLINE, or no connection) only
    the cache is used. UserError if there is no such folder or model, or it is not available.
    """
    if is_path(name):
        folder = Path(name).expanduser()
        if not name or not folder.is_dir():
            raise UserError("no such folder", name, "give a Hugging Face folder, or a model's name on the hub")
        return folder
    if not weights:
        return _snapshot(name, SMALL)
    folder = _snapshot(name, SMALL + SAFETENSORS)
    return folder if any(folder.glob("model*.safetensors")) else _snapshot(name, SMALL + PICKLES)


def cached(name: str) -> Path | None:
    """The folder of a model that is already on this machine; None if it would have to be fetched. UserError if there is
    no such folder, or the name is not valid on the hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if is_path(name):
        return fetched(name)
    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        raise _invalid(name) from None
    return Path(found).parent if isinstance(found, str) else None


def cache() -> Path:
    """The hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _invalid(name: str) -> UserError:
    return UserError("neither a folder nor a name valid on the hub", name, "write owner/model")


def _snapshot(name: str, patterns: list[str]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except HFValidationError:
        raise _invalid(name) from None
    except GatedRepoError:
        hint = f"accept them at {constants.ENDPOINT}/{name}, then hf auth login"
        raise UserError("a gated model: its conditions must be accepted", name, hint) from None
    except RepositoryNotFoundError:
        hint = "check the name; for a private model, hf auth login"
        raise UserError(f"no such folder, and no such model at {constants.ENDPOINT}", name, hint) from None
    except LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
        hint = f"where there is internet: hf download {name}; then copy {constants.HF_HUB_CACHE} here"
        raise UserError(f"missing or incomplete in the cache {constants.HF_HUB_CACHE}, and {why}", name, hint) from None
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"cannot be fetched from {constants.ENDPOINT}: {one_line(error)}", name, "try again") from None
