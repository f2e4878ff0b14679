"""The tokenizer: nothing is lost, nothing depends on the run, and transformers reads the same ids."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import tokenizers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from real_files import REAL_DATA

from bigchem.base.errors import UserError
from bigchem.chemistry.tokens import atom_starts
from bigchem.data.sources import reader
from bigchem.data.sources.base import SourceConfig
from bigchem.data.text.escapes import ESCAPE, ESCAPED
from bigchem.data.text.tokenizer import CHEMISTRY, EOS, PAD, SPECIAL, UNK, Smiles, Tokenizer
from bigchem.tasks import shipped

T5 = REAL_DATA.parent / "vocab/t5"
CORPUS = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "F/C=C\\F",
    "[Na+]~[OH-].CCO",
    "The molecule is a {2-[(4-amino)]}^2 acid, 0 °C < T; α,β×3.",
    " two  spaces, and one at the end ",
    "tabs\tand\nnewlines ½ ˜ ™",
] * 30


@cache
def trained() -> Tokenizer:
    return Tokenizer.train(CORPUS, 512)


@cache
def with_chemistry(smiles: Smiles = "pieces") -> Tokenizer:
    if not T5.is_dir():
        pytest.skip("no vocab/t5 beside BIGCHEM_DATA")
    return Tokenizer.from_t5(T5, smiles)


def stock() -> tokenizers.Tokenizer:
    with_chemistry()
    return tokenizers.Tokenizer.from_file(str(T5 / "tokenizer.json"))


@cache
def public_texts() -> list[str]:
    """A few thousand distinct texts of every public corpus that is available."""
    if not (REAL_DATA / "chebi20").is_dir():
        pytest.skip("no corpora: set BIGCHEM_DATA")
    texts: set[str] = set()
    for name, file, target in (
        ("chebi20", "chebi20/test.txt", None),
        ("rsmi", "uspto_lowe/train.rsmi.gz", None),
        ("reaction_csv", "uspto_50k/test.csv", None),
        ("parallel_text", "lowe_actions/src-test.txt.gz", "lowe_actions/tgt-test.txt.gz"),
        ("parallel_text", "paragraph2actions/src-train.txt", "paragraph2actions/tgt-train.txt"),
    ):
        paths = {"path": str(REAL_DATA / file), "target_path": str(REAL_DATA / target) if target else None}
        source = SourceConfig(format=name, split="train", **paths)
        for _, record in zip(range(500), reader(name).records(source, shipped()), strict=False):
            texts.update(
                text for row in reader(name).rows(record, source, shipped()) for text in (row.source, row.target)
            )
    return sorted(texts)


def test_trained_vocabulary_gives_back_every_text_of_its_corpus():
    assert all(trained().round_trips(CORPUS))
    assert not any(UNK in ids for ids in trained().encode_batch(CORPUS))


def test_text_of_unknown_characters_is_unk_and_counted_as_lost():
    ids = trained().encode_batch(["CCЖO"])[0]
    assert UNK in ids
    assert trained().round_trips(["CCЖO", "CCO"]) == [False, True]


@settings(max_examples=200)
@given(st.text(alphabet="CNO()=#12 \\~{}^<αβ×\t\n½", max_size=60))
def test_any_text_of_known_characters_round_trips(text):
    assert known_characters().round_trips([text]) == [True]


@cache
def known_characters() -> Tokenizer:
    return Tokenizer.train([*CORPUS, "CNO()=#12 \\~{}^<αβ×\t\n½"], 512)


def test_ids_end_with_eos_and_special_ids_are_t5s():
    assert (PAD, EOS, UNK) == (0, 1, 2)
    assert trained().encode_batch(["", "CC"])[0] == [EOS]
    for ids in trained().encode_batch(CORPUS):
        assert ids[-1] == EOS
        assert not {PAD, EOS} & set(ids[:-1])


def test_decoding_drops_pad_eos_and_rows_without_a_piece():
    tokenizer = trained()
    ids = tokenizer.encode_batch(["CCO"])[0]
    assert tokenizer.decode_batch([[PAD, *ids, PAD, PAD], [], [10**6]]) == ["CCO", "", ""]


def test_embedding_rows_are_a_multiple_of_64_that_holds_every_piece():
    small = Tokenizer.train(["CCO"], 300)
    assert small.vocab_size == 64
    assert 448 < Tokenizer.train(CORPUS + [f"word{i}" for i in range(900)], 450).vocab_size <= 512


def test_vocabulary_too_small_for_the_alphabet_is_a_user_error():
    with pytest.raises(UserError, match=r"vocab_size.*distinct characters"):
        Tokenizer.train(CORPUS, 30)


def test_training_is_the_same_in_every_process_and_with_any_number_of_threads(tmp_path):
    program = (
        "import json, sys; from bigchem.data.text.tokenizer import Tokenizer;"
        "Tokenizer.train(json.load(open(sys.argv[1])), 200).save(sys.argv[2])"
    )
    # Distinct words in equal numbers: ties would reveal an order of threads or hashes.
    corpus = [f"C{a}{b}O" for a in "NSPFI123456789" for b in "=#()[]+-"]
    (tmp_path / "corpus.json").write_text(json.dumps(corpus * 3))
    hashes = set()
    for run in (1, 2, 3):
        env = {**os.environ, "RAYON_NUM_THREADS": str(run), "PYTHONHASHSEED": str(run)}
        folder = tmp_path / str(run)
        subprocess.run([sys.executable, "-c", program, str(tmp_path / "corpus.json"), str(folder)], env=env, check=True)
        hashes.add(hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_saved_and_loaded_is_equal_to_the_byte(tmp_path):
    trained().save(tmp_path / "a")
    loaded = Tokenizer.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert loaded.fingerprint == trained().fingerprint
    assert loaded.encode_batch(CORPUS) == trained().encode_batch(CORPUS)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_fingerprint_tells_vocabularies_apart():
    assert len({trained().fingerprint, known_characters().fingerprint, Tokenizer.train(CORPUS, 80).fingerprint}) == 3


def test_missing_or_damaged_tokenizer_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="cannot read"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read"):
        Tokenizer.load(tmp_path)
    trained().save(tmp_path)
    broken = json.loads((tmp_path / "tokenizer.json").read_text())
    broken["model"]["vocab"][:3] = [["a!", 0.0], ["b!", 0.0], ["c!", 0.0]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match="not a T5 vocabulary"):
        Tokenizer.from_t5(tmp_path)


def test_importing_the_tokenizer_imports_neither_torch_nor_transformers():
    program = (
        "import sys, bigchem.data.text.tokenizer; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def check_transformers_agrees(tokenizer: Tokenizer, texts: list[str], folder: Path) -> None:
    from transformers import AutoTokenizer, T5TokenizerFast

    tokenizer.save(folder)
    ids = tokenizer.encode_batch(texts)
    auto = AutoTokenizer.from_pretrained(folder)
    assert auto(texts)["input_ids"] == ids
    assert (auto.pad_token_id, auto.eos_token_id, auto.unk_token_id) == (PAD, EOS, UNK)
    spelled = [i for i in ids if UNK not in i]
    assert auto.batch_decode(spelled, skip_special_tokens=True) == tokenizer.decode_batch(spelled)
    # T5's own class rebuilds its pipeline: it collapses runs of spaces and escapes nothing.
    single = [text for text in texts if " ".join(text.split()) == text and not set(text) & set(ESCAPED)]
    assert single
    own_class = T5TokenizerFast.from_pretrained(folder)
    assert own_class(single)["input_ids"] == tokenizer.encode_batch(single)
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    beside_a_model = AutoTokenizer.from_pretrained(folder)
    assert beside_a_model(texts)["input_ids"] == ids


def test_transformers_reads_a_trained_vocabulary_to_the_same_ids(tmp_path):
    check_transformers_agrees(trained(), CORPUS[:6], tmp_path)


@pytest.mark.data
def test_transformers_reads_t5_with_chemistry_to_the_same_ids(tmp_path):
    check_transformers_agrees(with_chemistry(), public_texts(), tmp_path)


@pytest.mark.data
def test_chemistry_fills_t5s_free_rows_and_changes_no_id_that_t5_could_spell():
    tokenizer, t5 = with_chemistry(), stock()
    assert (t5.get_vocab_size(), tokenizer.vocab_size, len(set(CHEMISTRY))) == (32100, 32128, 28)
    texts = public_texts()
    before = [encoding.ids for encoding in t5.encode_batch(texts)]
    exact = [t5.decode(ids) == text for text, ids in zip(texts, before, strict=True)]
    after = tokenizer.encode_batch(texts)
    assert sum(exact) > 2000
    assert all(a == b for a, b, spelled in zip(before, after, exact, strict=True) if spelled)


@pytest.mark.data
def test_from_t5_of_its_own_output_changes_nothing(tmp_path):
    with_chemistry().save(tmp_path)
    assert Tokenizer.from_t5(tmp_path).fingerprint == with_chemistry().fingerprint


@pytest.mark.data
def test_every_published_molecule_caption_and_procedure_round_trips():
    lines = [line.split("\t", 2) for s in ("test", "validation") for line in chebi_lines(s)]
    texts = [line[1].replace("\\\\", "\\") for line in lines] + [line[2] for line in lines] + public_texts()
    with gzip.open(REAL_DATA / "lowe_actions/src-test.txt.gz", "rt", encoding="utf-8", newline="\n") as file:
        texts += [line.rstrip("\n") for line in file]
    assert any(set(text) & set(ESCAPED) for text in texts)
    assert all(with_chemistry().round_trips(texts))


def chebi_lines(split: str) -> list[str]:
    file = REAL_DATA / f"chebi20/{split}.txt"
    if not file.is_file():
        pytest.skip("no chebi20: set BIGCHEM_DATA")
    return [line for line in file.read_text(encoding="utf-8").split("\n")[1:] if line]


@pytest.mark.data
@pytest.mark.parametrize("character", CHEMISTRY[:-1])
def test_each_chemistry_token_is_one_id_and_comes_back(character):
    tokenizer = with_chemistry()
    assert tokenizer.round_trips([f"x{character}y {character}"]) == [True]
    one, none = tokenizer.encode_batch([f"x {character}", "x "])
    assert UNK not in one
    assert len(one) == len(none) + 1


@cache
def t5_alphabet() -> list[str]:
    """Every character that T5 spells and its normalisation leaves alone."""
    t5 = stock()
    known = {char for piece in t5.get_vocab() if not piece.startswith("<extra_id_") for char in piece} - {"▁"}
    return sorted(char for char in known if t5.decode(t5.encode(f"x{char}x").ids) == f"x{char}x")


@pytest.mark.data
def test_no_escaped_character_is_one_that_t5_spells_or_that_has_a_row():
    assert len(t5_alphabet()) > 120
    assert not set(ESCAPED) & {*t5_alphabet(), *CHEMISTRY}
    assert len(set(ESCAPED)) == len(ESCAPED)


@pytest.mark.data
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_text_of_what_t5_spells_chemistry_escaped_characters_and_spaces_round_trips(data):
    # Escaped characters, digits and spaces more often than one of each in 450, so they come together.
    pools = [t5_alphabet(), list(ESCAPED + ESCAPE), list(CHEMISTRY), list("  \t\n\r00bd21▁" + ESCAPE)]
    text = data.draw(st.text(alphabet=st.one_of([st.sampled_from(pool) for pool in pools]), max_size=40))
    assume(not any(name in text for name in (*SPECIAL, "<extra_id_")))  # these become the tokens themselves
    for smiles in ("pieces", "atoms"):
        tokenizer = with_chemistry(smiles)
        assert UNK not in tokenizer.encode_batch([text])[0]
        assert tokenizer.round_trips([text]) == [True]


@pytest.mark.data
def test_atoms_hold_for_t5_and_change_neither_text_nor_the_ids_of_words(tmp_path):
    atoms, pieces = with_chemistry("atoms"), with_chemistry()
    assert atoms.fingerprint != pieces.fingerprint
    check_atoms(atoms)
    assert all(atoms.round_trips(public_texts()))
    words = "Soon no cocoon is on it; In 10-50 °C (so), half-saturated brine. Stirred at 0.5 and 100% for 2½ h."
    assert atoms.encode_batch([words]) == pieces.encode_batch([words])
    atoms.save(tmp_path)
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path)(public_texts())["input_ids"] == atoms.encode_batch(public_texts())
    assert Tokenizer.from_t5(tmp_path, "pieces").fingerprint == pieces.fingerprint


SMILES = ["CC(=O)Oc1ccccc1C(=O)O", "F/C=C\\F", "[Na+]~[OH-].CCO", "C[C@@H](N)C(=O)O", "ClCCBr", "C1CC%12CC1CC%12"]


def check_atoms(tokenizer: Tokenizer) -> None:
    """In a text that contains SMILES, a token starts at every atom."""
    for smiles in SMILES:
        text = f"The molecule {smiles} is an acid"
        (starts,) = tokenizer.encode_with_starts([text])[1]
        # The first atom has its word's space.
        expected = {13 + start if start else 12 for start in atom_starts(smiles)}
        assert expected <= set(starts), smiles


def test_a_vocabulary_trained_on_atoms_holds_no_parts_of_two_and_loses_nothing():
    corpus = [*CORPUS, *(f"The molecule {smiles} is an acid" for smiles in SMILES)] * 10
    made = Tokenizer.train(corpus, 512, "atoms")
    check_atoms(made)
    assert all(made.round_trips(corpus))
    assert made.fingerprint != Tokenizer.train(corpus, 512).fingerprint
    assert len(made.encode_batch(["C[C@@H](N)C(=O)O"])[0]) == 11 + 1


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="CNO()=#12 \\~{}^<αβ×\t\n½", max_size=40))
def test_starts_cut_a_text_into_what_its_ids_decode_to(text):
    tokenizer = known_characters()
    (ids,), (starts,) = tokenizer.encode_with_starts([text])
    assert [ids] == tokenizer.encode_batch([text])
    assert starts[-1] == len(text)
    assert starts == sorted(starts)
    for place in range(1, len(ids) - 1):
        assert tokenizer.decode_batch([ids[:place]]) == [text[: starts[place]]]


@pytest.mark.data
def test_starts_are_those_of_the_text_before_escapes_and_normalisation():
    tokenizer = with_chemistry()
    text = "a ½ of CCO\u200c™ and ˜5 mL"
    (ids,), (starts,) = tokenizer.encode_with_starts([text])
    assert starts == sorted(starts)
    for place in range(1, len(ids)):
        if starts[place] > starts[place - 1]:
            assert tokenizer.decode_batch([ids[:place]]) == [text[: starts[place]]]


@pytest.mark.data
def test_sentinels_of_t5_go_down_from_32099():
    assert with_chemistry().sentinels == list(range(32099, 31999, -1))


def test_sentinels_of_a_trained_vocabulary_follow_its_pieces_and_change_no_id(tmp_path):
    plain, made = Tokenizer.train(CORPUS, 512), Tokenizer.train(CORPUS, 512, sentinels=100)
    first = made.sentinels[0]
    assert made.sentinels == list(range(first, first + 100))
    assert not plain.sentinels
    assert made.encode_batch(CORPUS) == plain.encode_batch(CORPUS)
    assert max(max(ids) for ids in made.encode_batch(CORPUS)) < first < made.vocab_size - 100 + 1
    assert made.decode_batch([[first, first + 99]]) == ["<extra_id_0><extra_id_99>"]
    check_transformers_agrees(made, CORPUS[:6], tmp_path)


def offline(program: str, cache_folder: Path, *arguments: str) -> str:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache_folder)}
    run = [
        sys.executable,
        "-c",
        "import sys; from bigchem.data.text.tokenizer import Tokenizer\n" + program,
        *arguments,
    ]
    return subprocess.run(run, capture_output=True, text=True, check=True, env=env).stdout


def test_a_models_name_offline_is_a_user_error_that_says_what_to_do(tmp_path):
    program = (
        "from bigchem.base.errors import UserError\nfor name in ('t5-base', 'no/such/name'):\n"
        "  try: Tokenizer.from_t5(name)\n  except UserError as e: print(e)"
    )
    output = offline(program, tmp_path)
    assert "t5-base: missing or incomplete in the cache" in output
    assert "next: where there is internet: hf download t5-base" in output
    assert "no/such/name: no such folder" in output


@pytest.mark.data
def test_a_models_name_is_looked_up_in_the_hubs_cache(tmp_path):
    snapshot = tmp_path / "models--t5-base/snapshots/1234"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--t5-base/refs").mkdir()
    (tmp_path / "models--t5-base/refs/main").write_text("1234")
    with_chemistry()
    (snapshot / "tokenizer.json").write_bytes((T5 / "tokenizer.json").read_bytes())
    found = offline("print(Tokenizer.from_t5('t5-base').fingerprint)", tmp_path)
    assert found.strip() == with_chemistry().fingerprint
