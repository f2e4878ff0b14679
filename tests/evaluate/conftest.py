"""Fixtures of the tests of evaluation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_dir(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights with the small corpus's tokenizer."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    from bigchem.data.text.tokenizer import Tokenizer
    from bigchem.model.presets import shape, to_hf_config

    folder = tmp_path_factory.mktemp("model")
    vocab_size = Tokenizer.load(small_data / "tokenizer").vocab_size
    torch.manual_seed(0)
    config = to_hf_config(shape("sweep-0.2m", vocab_size), 0.0)
    T5ForConditionalGeneration(T5Config(**config)).save_pretrained(folder)
    shutil.copytree(small_data / "tokenizer", folder, dirs_exist_ok=True)
    return folder
