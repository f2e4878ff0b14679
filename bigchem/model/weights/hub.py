"""Models by name: a folder, or a repository of the Hugging Face hub, fetched once into its cache. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from bigchem.base.errors import UserError

SMALL = ["config.json", "generation_config.json", "tokenizer*.json", "special_tokens_map.json", "spiece.model"]
SAFETENSORS = ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
PICKLES = ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"]


def is_path(name: str) -> bool:
    """Whether a model's name is a path: one that exists, or that looks like one (`./x`, `/x`, `~/x`, `a/b/c`)."""
    return not name or name[0] in "./~" or name.count("/") > 1 or Path(name).exists()


def fetched(name: str, *, weights: bool = True) -> Path:
    """The folder of a model: a path as it is, or the hub's cache (HF_HOME), filled where files are missing.

    weights: also safetensors or, only where there are none, pytorch_model.bin. Offline (HF_HUB_OFFLINE, or no
    connection) the cache alone is used. UserError if there is no such folder or model, or it cannot be had.
    """
    if is_path(name):
        folder = Path(name).expanduser()
        if not name or not folder.is_dir():
            raise UserError("no such folder", name, "give a Hugging Face folder, or the hub's name of a model")
        return folder
    if not weights:
        return _snapshot(name, SMALL)
    folder = _snapshot(name, SMALL + SAFETENSORS)
    return folder if any(folder.glob("model*.safetensors")) else _snapshot(name, SMALL + PICKLES)


def known(name: str) -> Path | None:
    """The folder of a model that is here already; None for one that would have to be fetched."""
    from huggingface_hub import try_to_load_from_cache

    if is_path(name):
        return fetched(name)
    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def cache() -> Path:
    """The hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


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
        raise UserError("neither a folder nor a name that the hub could have", name, "write owner/model") from None
    except GatedRepoError:
        hint = f"accept them at {constants.ENDPOINT}/{name}, then hf auth login"
        raise UserError("the model's owner asks for conditions to be accepted", name, hint) from None
    except RepositoryNotFoundError:
        hint = "check the name; for a private model, hf auth login"
        raise UserError(f"no such folder, and no such model at {constants.ENDPOINT}", name, hint) from None
    except LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
        hint = f"where there is internet: hf download {name}; then take {constants.HF_HUB_CACHE} along"
        raise UserError(f"not (or not whole) in the cache {constants.HF_HUB_CACHE}, and {why}", name, hint) from None
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot be fetched from {constants.ENDPOINT}: {reason}", name, "try again") from None
