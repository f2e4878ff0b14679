"""What `model.init_from` must be for a run, looked at before the queue. Needs no torch, but for weights in pickles."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

from bigchem.base.errors import UserError
from bigchem.data.storage.shards import Data
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.model.presets import Shape
from bigchem.model.weights.files import check_weights
from bigchem.model.weights.hf_config import read_shape


def check_initial(folder: Path, data: Data) -> None:
    """UserError unless a folder's model can be trained on the data: configuration, files, names and shapes of tensors,
    token ids."""
    shape = read_shape(folder)
    if not check_weights(folder, shape):
        from bigchem.model.weights.pretrained import check_pickles

        check_pickles(folder, shape)
    check_vocabulary(folder, data)
    check_rows(shape, Tokenizer.load(data.tokenizer_dir).vocab_size, str(folder))


def check_rows(shape: Shape, vocab_size: int, where: str) -> None:
    """UserError if the embedding has fewer rows than the data's tokenizer has ids."""
    if shape.vocab_size < vocab_size:
        raise UserError(
            f"the model has {shape.vocab_size} embedding rows, the data's tokenizer needs {vocab_size}",
            where,
            "build the data with the tokenizer of this model",
        )


def check_vocabulary(folder: Path, data: Data) -> None:
    """UserError if the weights in `folder` belong to other token ids than the data's.

    T5's own vocabulary is the data's without the chemistry in its free rows: those rows are learned.
    """
    known = []
    for load in (Tokenizer.load, Tokenizer.from_t5, partial(Tokenizer.from_t5, smiles="atoms")):
        with suppress(UserError):
            known.append(load(str(folder.resolve())).fingerprint)
    if known and data.index.tokenizer not in known:
        raise UserError(
            "the weights belong to another tokenizer than the data's", str(folder), "build the data with tokenizer.t5"
        )
