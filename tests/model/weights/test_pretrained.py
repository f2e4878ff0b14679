import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_models import SOURCE_LENGTHS, TARGET_LENGTHS, V1_0, V1_1, build, pack, sequences, transformers_model, write
from transformers import T5ForConditionalGeneration

from bigchem.base.errors import UserError
from bigchem.data.text.tokenizer import Tokenizer
from bigchem.model.presets import Shape
from bigchem.model.t5 import PackedT5
from bigchem.model.weights.pretrained import check_folder, load_pretrained, save_pretrained

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("shape", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_weights_go_to_transformers_and_back_unchanged(shape: Shape, tmp_path: Path) -> None:
    model = build(shape)
    transformers_model(model, tmp_path / "ours").save_pretrained(tmp_path / "theirs", max_shard_size="40KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").exists()
    back = load_pretrained(tmp_path / "theirs")
    assert back.shape == shape
    assert list(back.state_dict()) == list(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), back.state_dict().values(), strict=True))
    assert all(p.requires_grad and p.dtype == torch.float32 for p in back.parameters())


def test_old_checkpoints_with_copies_of_the_embedding_load(tmp_path: Path) -> None:
    model = build(V1_0)
    weights = dict(model.state_dict())
    for copy_name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        weights[copy_name] = weights["shared.weight"].clone()
    weights["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(32, 2)
    save_file(weights, write(model, tmp_path) / "model.safetensors")
    assert torch.equal(load_pretrained(tmp_path).shared.weight, model.shared.weight)
    weights["lm_head.weight"] += 1
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"lm_head.weight differs"):
        load_pretrained(tmp_path)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config.json"):
        load_pretrained(tmp_path)
    model = build(V1_0)
    write(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "d_ff": 64}))
    with pytest.raises(UserError, match=r"DenseReluDense.wi.weight has shape \(48, 32\)"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_layers": 3}))
    with pytest.raises(UserError, match=r"encoder.block.2.*none"):
        load_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no weights"):
        load_pretrained(tmp_path)


def as_pickle(folder: Path, *, legacy: bool = False) -> Path:
    """Turns a folder's weights into a pytorch_model.bin with every name under which transformers 4 repeated the
    embedding."""
    weights = load_pretrained(folder).state_dict()
    weights |= dict.fromkeys(("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"), weights["shared.weight"])
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("legacy", [False, True], ids=["mapped", "before torch 1.6"])
def test_pickled_weights_load(legacy: bool, tmp_path: Path) -> None:
    model = build(V1_1)
    back = load_pretrained(as_pickle(write(model, tmp_path), legacy=legacy))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), back.state_dict().values(), strict=True))


def test_loaded_weights_can_be_trained_and_leave_the_file_alone(tmp_path: Path) -> None:
    """They are memory-mapped from it."""
    folder = write(build(V1_0), tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    model = load_pretrained(folder)
    model(pack(sequences([4], 1), sequences([3], 2))).total.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert (folder / "model.safetensors").read_bytes() == before
    assert not torch.equal(load_pretrained(folder).shared.weight, model.shared.weight)


class Hostile:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("touched"),))


def test_a_hostile_pickle_is_refused_unexecuted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    as_pickle(write(build(V1_0), tmp_path))
    for content in (Hostile(), {"shared.weight": Hostile()}):
        torch.save(content, tmp_path / "pytorch_model.bin")
        with pytest.raises(UserError, match="cannot load safely"):
            load_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(), protocol=2))
    with pytest.raises(UserError, match="cannot load safely"):
        load_pretrained(tmp_path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04 and then nothing of the kind"])
def test_damaged_weights_are_told_with_their_file(content: bytes, tmp_path: Path) -> None:
    folder = write(build(V1_0), tmp_path)
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read model\.safetensors"):
        load_pretrained(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(UserError, match=r"pytorch_model\.bin: cannot load safely"):
        load_pretrained(folder)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 242043056\n"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "pytorch_model.bin", "config.json", "model.safetensors.index.json"]
)
def test_a_git_lfs_pointer_is_named_as_one(name: str, tmp_path: Path) -> None:
    folder = write(build(V1_0), tmp_path)
    if name == "pytorch_model.bin":
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(POINTER)
    for load in (load_pretrained, check_folder):
        with pytest.raises(UserError, match=rf"{name}: .*a Git LFS pointer, not the file\nnext: run `git lfs pull`"):
            load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_when_loaded_but_not_by_the_check(value: float, tmp_path: Path) -> None:
    weights = dict(build(V1_0).bfloat16().state_dict())
    name = "decoder.block.0.layer.0.SelfAttention.q.weight"
    weights[name][3, 5] = value
    save_file(weights, write(build(V1_0), tmp_path) / "model.safetensors")
    check_folder(tmp_path)
    with pytest.raises(UserError, match=f"{name} has values that are not finite"):
        load_pretrained(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    transformers_model(build(V1_0), tmp_path / "ours").save_pretrained(folder, max_shard_size="40KB")
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is missing"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "not an index"),
        ('{"weight_map": 3}', "not an index"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "outside its folder"),
    ],
)
def test_an_index_that_is_none_is_refused(index: str, message: str, tmp_path: Path) -> None:
    (write(build(V1_0), tmp_path) / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match=message):
        load_pretrained(tmp_path)


def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    for content in (b"{", b"[]", b"\xff\xfe"):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(UserError, match=r"not JSON|not a configuration|not UTF-8"):
            load_pretrained(tmp_path)


def saved(model: PackedT5, folder: Path) -> T5ForConditionalGeneration:
    save_pretrained(model, folder)
    return T5ForConditionalGeneration.from_pretrained(folder).eval()


@torch.no_grad()
def greedy(model: PackedT5, sources: list[torch.Tensor], steps: int) -> list[list[int]]:
    """The packed model's likeliest next token, step by step."""
    texts: list[list[int]] = [[] for _ in sources]
    for _ in range(steps):
        # The last label is never an input: its row holds the scores of the next token.
        targets = [torch.tensor([*text, 0]) for text in texts]
        batch = pack(sources, targets)
        ends = batch.target_cu_seqlens[1:].long() - 1
        for text, token in zip(texts, model.logits(batch)[ends].argmax(-1).tolist(), strict=True):
            if not text or text[-1] != 1:
                text.append(token)
    return texts


@pytest.mark.parametrize("shape", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_saved_models_give_transformers_the_same_logits(shape: Shape, tmp_path: Path) -> None:
    model = build(shape).eval()
    theirs = saved(model, tmp_path / "out")
    sources, targets = sequences(SOURCE_LENGTHS, 1), sequences(TARGET_LENGTHS, 2)
    with torch.no_grad():
        got = model.logits(pack(sources, targets)).split([len(t) for t in targets])
        for source, target, ours in zip(sources, targets, got, strict=True):
            want = theirs(input_ids=source[None], labels=target[None]).logits[0]
            assert (ours - want).abs().max() / want.abs().max() < 1e-5


PAIRS = [("CCO", "ethanol"), ("c1ccccc1O", "phenol, a weak acid"), ("CC(=O)O", "acetic acid is vinegar's")]


@pytest.mark.parametrize("shape", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_saved_models_give_transformers_the_same_greedy_text(shape: Shape, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train([text for pair in PAIRS for text in pair] * 20, 64)
    sources, targets = (
        [torch.tensor(ids) for ids in tokenizer.encode_batch(side)] for side in zip(*PAIRS, strict=True)
    )
    # Equally deep: transformers' cache has as many layers as the encoder (5.23: IndexError in a deeper decoder).
    model = build(replace(shape, vocab_size=tokenizer.vocab_size, num_decoder_layers=shape.num_layers))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):  # fresh weights repeat one token, on which any two models would agree
        optimizer.zero_grad()
        model(pack(sources, targets)).total.backward()
        optimizer.step()
    theirs = saved(model.eval(), tmp_path / "out")
    ours = greedy(model, sources, 24)
    assert tokenizer.decode_batch(ours) == [text for _, text in PAIRS]
    for source, text in zip(sources, ours, strict=True):
        want = theirs.generate(source[None], max_new_tokens=24, do_sample=False, num_beams=1)[0, 1:].tolist()
        assert text == want


def test_saved_folders_round_trip_and_nothing_is_overwritten(tmp_path: Path) -> None:
    model = build(V1_1, dropout=0.3).bfloat16()
    save_pretrained(model, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["dtype"], config["dropout_rate"]) == ("bfloat16", 0.3)
    assert torch.equal(load_pretrained(tmp_path / "out").shared.weight, model.shared.weight.float())
    with pytest.raises(UserError, match="already exists"):
        save_pretrained(model, tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"out"}


def test_a_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigchem.model.weights.pretrained.to_hf_config", lambda shape, dropout: {})
    with pytest.raises(KeyError):
        save_pretrained(build(V1_0), tmp_path / "out")
    assert not list(tmp_path.iterdir())
