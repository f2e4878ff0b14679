"""Checks of `model.init_from` before a job is queued. Without torch, unless the weights are pickles."""

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
    """UserError unless the folder's model can be trained on the data: checks configuration, files, tensor names and
    shapes, and token ids."""
    shape = read_shape(folder)
    if not check_weights(folder, shape):
        from bigchem.model.weights.pretrained import check_pickles

        check_pickles(folder, shape)
    check_vocabulary(folder, data)
    check_rows(shape, Tokenizer.load(data.tokenizer_dir).vocab_size, str(folder))


def check_rows(shape: Shape, vocab_size: int, where: str) -> None:
    """UserError if the embedding has fewer rows than the tokenizer has ids."""
    if shape.vocab_size < vocab_size:
        raise UserError(
            f"the model has {shape.vocab_size} embedding rows, the data's tokenizer needs {vocab_size}",
            where,
            "build the data with this model's tokenizer",
        )


def check_vocabulary(folder: Path, data: Data) -> None:
    """UserError if the weights in `folder` were trained with other token ids than the data's.

    Stock T5's vocabulary passes: the data's adds chemistry in its free rows, and those rows are learned.
    """
    known = []
    for load in (Tokenizer.load, Tokenizer.from_t5, partial(Tokenizer.from_t5, smiles="atoms")):
        with suppress(UserError):
            known.append(load(str(folder.resolve())).fingerprint)
    if known and data.index.tokenizer not in known:
        what = "the weights were trained with another tokenizer than the data's"
        raise UserError(what, str(folder), "build the data with tokenizer.t5")
