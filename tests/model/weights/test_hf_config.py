"""Other people's config.json and weight files: fields that affect the function are applied or refused by name."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from small_models import SOURCE_LENGTHS, TARGET_LENGTHS, V1_0, V1_1, build, pack, sequences, write

from bigchem.base.errors import UserError
from bigchem.model.presets import num_parameters, to_hf_config
from bigchem.model.weights.files import check_weights, weight_files
from bigchem.model.weights.hf_config import FIXED, OPTIONAL, SIZES, from_hf_config, read_shape
from bigchem.model.weights.pretrained import check_folder, load_pretrained, save_pretrained

GOOD: dict[str, Any] = {"model_type": "t5", "vocab_size": 200, "d_model": 32, "d_kv": 8, "d_ff": 64}
GOOD |= {"num_layers": 2, "num_heads": 4}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("d_model", "32", "whole number, without quotes"),
        ("d_model", 32.5, "whole number"),
        ("d_model", True, "not a boolean"),
        ("vocab_size", "abc", "not a string"),
        ("vocab_size", 10**30, "from 3 to"),
        ("num_heads", -4, "from 1 to"),
        ("num_layers", 0, "from 1 to"),
        ("num_layers", "9" * 5000, "not a string"),
        ("num_decoder_layers", [2], "not a list"),
        ("relative_attention_max_distance", "far", "not a string"),
        ("relative_attention_max_distance", 16, "more than half of the 32 buckets"),
        ("layer_norm_epsilon", -1e-6, "from 0 to 1"),
        ("pad_token_id", 9, "pad 0"),
        ("eos_token_id", 8, "end token 1"),
        ("eos_token_id", [1, 2], "end token 1"),
        ("eos_token_id", True, "end token 1"),
        ("decoder_start_token_id", 5, "0 as the first input token"),
        ("is_encoder_decoder", False, "encoder and a decoder"),
        ("pruned_heads", {"0": [1]}, "all heads"),
        ("quantization_config", {"load_in_8bit": True}, "without quantization"),
        ("tie_word_embeddings", "false", "true or false"),
        ("feed_forward_proj", "gated-tanh", "gated-gelu"),
        ("feed_forward_proj", 7, "gated-gelu"),
        ("hidden_size", 64, "but d_model is 32"),
    ],
)
def test_a_field_that_is_wrong_or_another_function_is_refused_by_name(field: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as error:
        from_hf_config({**GOOD, field: value}, "config.json")
    assert field in error.value.what
    assert message in error.value.what
    assert len(str(error.value)) < 400


def test_all_wrong_fields_are_in_one_message() -> None:
    with pytest.raises(UserError) as error:
        from_hf_config({**GOOD, "d_model": "32", "num_heads": -4, "pad_token_id": 9, "d_ff": None}, "config.json")
    assert all(name in error.value.what for name in ("d_model", "num_heads", "pad_token_id", "d_ff: missing"))


@pytest.mark.parametrize("kind", ["umt5", "t5gemma", "longt5", "bart", 5, None])
def test_another_kind_of_model_is_refused_in_two_lines(kind: Any) -> None:
    with pytest.raises(UserError) as error:
        from_hf_config({**GOOD, "model_type": kind}, "config.json")
    assert len(str(error.value).splitlines()) == 2
    assert "model_type" in error.value.what


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("9" * 5000) | st.just([])
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*SIZES, *OPTIONAL, *FIXED, "tie_word_embeddings", "is_gated_act"]), VALUES))
def test_whatever_is_in_a_configuration_it_is_a_shape_of_bounded_size_or_refused(changes: dict[str, Any]) -> None:
    try:
        shape = from_hf_config({**GOOD, **changes})
    except UserError as error:
        message = str(error)
    else:
        message = ""
        assert 0 < num_parameters(shape) < 2**64
    assert len(message) < 3000


def test_generation_from_other_ids_is_refused(tmp_path: Path) -> None:
    write(build(V1_0), tmp_path)
    (tmp_path / "generation_config.json").write_text('{"decoder_start_token_id": 0, "eos_token_id": 1}')
    assert read_shape(tmp_path) == V1_0
    (tmp_path / "generation_config.json").write_text('{"decoder_start_token_id": 2}')
    with pytest.raises(UserError, match=r"generation_config.json.*decoder_start_token_id is 2"):
        read_shape(tmp_path)


def t5(**fields: Any) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"vocab_size": 61, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4}
    torch.manual_seed(0)
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0, **fields))


def mt5() -> Any:
    from transformers import MT5Config, MT5ForConditionalGeneration

    sizes = {"vocab_size": 61, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_layers": 2, "num_heads": 4}
    torch.manual_seed(0)
    return MT5ForConditionalGeneration(MT5Config(**sizes))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["tied and not scaled", "UL2", "mT5"])
def test_what_transformers_saves_has_the_same_loss_here_and_after_it_is_saved_again(kind: str, tmp_path: Path) -> None:
    model = {
        "tied and not scaled": lambda: t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        "UL2": lambda: t5(feed_forward_proj="gated-silu", tie_word_embeddings=False),
        "mT5": mt5,
    }[kind]().eval()
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            parameter.uniform_(0.5, 1.5)
    model.save_pretrained(tmp_path / "theirs")
    check_folder(tmp_path / "theirs")
    ours = load_pretrained(tmp_path / "theirs", dropout=0.0).eval()
    sources, targets = sequences(SOURCE_LENGTHS, 1), sequences(TARGET_LENGTHS, 2)
    expected = their_loss(model, sources, targets)
    assert float(ours(pack(sources, targets)).total) == pytest.approx(expected, rel=1e-5)
    save_pretrained(ours, tmp_path / "ours")
    from transformers import T5ForConditionalGeneration

    again = T5ForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    assert their_loss(again, sources, targets) == pytest.approx(expected, rel=1e-5)


def their_loss(model: Any, sources: list[torch.Tensor], targets: list[torch.Tensor]) -> float:
    """Summed cross-entropy, one example at a time."""
    return sum(
        float(model(input_ids=source[None], labels=target[None]).loss) * len(target)
        for source, target in zip(sources, targets, strict=True)
    )


@pytest.mark.parametrize(
    ("other", "next_step"),
    [
        ({"eos_token_id": 2, "bos_token_id": 1}, "this checkpoint's special token ids are not T5's"),
        ({"eos_token_id": 2, "d_ff": "x"}, "this checkpoint's special token ids are not T5's"),
        ({"forced_bos_token_id": 5}, "use the checkpoint's own config.json"),
        ({"d_ff": "x"}, "use the checkpoint's own config.json"),
    ],
    ids=["CodeT5", "CodeT5, edited", "forced tokens", "edited"],
)
def test_a_checkpoint_with_other_ids_is_not_sent_to_its_own_configuration(
    other: dict[str, Any], next_step: str
) -> None:
    with pytest.raises(UserError) as error:
        from_hf_config({**to_hf_config(V1_0, 0.0), **other})
    assert f"\nnext: {next_step}" in str(error.value)


def test_an_encoder_alone_a_missing_tensor_and_a_file_that_is_cut_off_are_told_without_torch(tmp_path: Path) -> None:
    weights = dict(build(V1_1).state_dict())
    folder = write(build(V1_1), tmp_path)
    assert check_weights(folder, V1_1)
    file = folder / "model.safetensors"
    save_file({name: value for name, value in weights.items() if not name.startswith("decoder.")}, file)
    with pytest.raises(UserError, match="only an encoder"):
        check_weights(folder, V1_1)
    save_file({name: value for name, value in weights.items() if "decoder.block.1" not in name}, file)
    with pytest.raises(UserError, match=r"decoder.block.1.*none.*more differ"):
        check_weights(folder, V1_1)
    save_file(weights, file)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="its header says"):
        check_weights(folder, V1_1)
    file.write_bytes(b"\xff" * 8 + b"{}")
    with pytest.raises(UserError, match="header is too long"):
        check_weights(folder, V1_1)
    file.unlink()
    with pytest.raises(UserError, match="holds no weights"):
        weight_files(folder)


@pytest.mark.parametrize(
    ("prefix", "remedy"),
    [
        ("module.", "save model.module, or"),
        ("module.module.", "save model.module, or"),
        ("transformer.", "use a checkpoint of T5ForConditionalGeneration, or"),
        ("net.t5.", "which a wrapper adds\nnext: save the tensors"),
    ],
)
def test_a_prefix_of_all_names_is_named_with_its_remedy(prefix: str, remedy: str, tmp_path: Path) -> None:
    model = build(V1_1)
    file = write(model, tmp_path) / "model.safetensors"
    weights = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    save_file({**weights, "classification_head.dense.weight": torch.zeros(2, 2)}, file)
    for check in (lambda: check_weights(tmp_path, V1_1), lambda: load_pretrained(tmp_path)):
        with pytest.raises(UserError, match=f"begin with '{prefix}'") as error:
            check()
        assert remedy in str(error.value)
        assert f"name.removeprefix('{prefix}'), without the 1 that lack it" in str(error.value)


def test_a_number_of_thousands_of_digits_is_refused_at_once(tmp_path: Path) -> None:
    config = json.dumps({**to_hf_config(V1_0, 0.0), "num_layers": 0}).replace(
        '"num_layers": 0', '"num_layers": ' + "9" * 5000
    )
    (tmp_path / "config.json").write_text(config)
    begun = time.monotonic()
    with pytest.raises(UserError, match="not JSON"):
        read_shape(tmp_path)
    assert time.monotonic() - begun < 1.0
