"""bigchem.evaluate.metrics.text against nltk, rouge_score and transformers, and by hand."""

import random
import shutil
import warnings
from math import exp

import numpy as np
import pytest
from nltk.translate.bleu_score import corpus_bleu

from bigchem.base.errors import UserError
from bigchem.evaluate.metrics import text


def random_corpus(seed, pairs=60, vocabulary="abcdefgh"):
    rng = random.Random(seed)
    sides = [["".join(rng.choices(vocabulary, k=rng.randrange(0, 12))) for _ in range(pairs)] for _ in range(2)]
    return [[list(one) for one in side] for side in sides]


def nltk_bleu(references, predictions, order):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return corpus_bleu([[one] for one in references], predictions, weights=(1 / order,) * order)


def bleu(references, predictions, order):
    return float(text.bleu(text.bleu_counts([[one] for one in references], predictions, 4).sum(axis=0), order))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("order", [2, 4])
@pytest.mark.parametrize("vocabulary", ["ab", "abcdefgh"])
def test_bleu_from_summed_counts_is_nltks_corpus_bleu(seed, order, vocabulary):
    references, predictions = random_corpus(seed, vocabulary=vocabulary)
    assert bleu(references, predictions, order) == pytest.approx(nltk_bleu(references, predictions, order), abs=1e-9)


@pytest.mark.parametrize(
    ("reference", "prediction"),
    [("abcd", ""), ("", ""), ("", "abcd"), ("a", "a"), ("abc", "abc"), ("abcd", "wxyz"), ("abcdef", "abxxef")],
)
def test_bleu_without_a_match_of_some_order_is_zero_as_in_nltk(reference, prediction):
    ours = bleu([reference], [prediction], 4)
    assert ours == 0.0
    assert nltk_bleu([list(reference)], [list(prediction)], 4) == pytest.approx(0.0, abs=1e-9)


def test_bleu_by_hand():
    # 3 of 4 unigrams and 2 of 3 bigrams match; 4 predicted tokens for 5: brevity exp(1 - 5/4).
    assert bleu([list("abcde")], [list("abcx")], 2) == pytest.approx((3 / 4 * 2 / 3) ** 0.5 * exp(-0.25))
    # "aa" is in the reference once, so it is matched once: 2 of 3 unigrams, 1 of 2 bigrams, no brevity penalty.
    assert bleu([list("aa")], [list("aaa")], 2) == pytest.approx((2 / 3 * 1 / 2) ** 0.5)


def test_bleu_of_several_references_is_nltks():
    (first, second), (third, predictions) = random_corpus(5), random_corpus(6)
    references = list(zip(first, second, third, strict=True))
    ours = float(text.bleu(text.bleu_counts(references, predictions, 2).sum(axis=0), 2))
    assert ours == pytest.approx(corpus_bleu(references, predictions, weights=(0.5, 0.5)))
    assert 0 < ours < 1


def test_bleu_folds_many_sums_at_once():
    references, predictions = random_corpus(3)
    counts = text.bleu_counts([[one] for one in references], predictions, 4)
    sums = np.stack([counts.sum(axis=0), counts[:30].sum(axis=0)])
    assert text.bleu(sums, 4) == pytest.approx([float(text.bleu(row, 4)) for row in sums])


def test_words_are_lower_case_with_single_punctuation_marks():
    assert text.words("It is 3β-ol,\t(R)!") == ["it", "is", "3β", "-", "ol", ",", "(", "r", ")", "!"]
    assert text.words("") == []


def test_rouge_by_hand():
    # 2 of 3 words each way, 1 of 2 bigrams, longest common subsequence of 2 words. Case and punctuation do not count.
    scores = text.rouge(["The cat sat.", "the cat", ""], ["the cat ran", "", ""])
    assert scores == pytest.approx(np.array([[2 / 3, 1 / 2, 2 / 3], [0, 0, 0], [0, 0, 0]]))


def test_rouge_does_not_stem():
    assert text.rouge(["acids"], ["acid"]).tolist() == [[0, 0, 0]]


@pytest.fixture
def vocabulary(tmp_path):
    file = tmp_path / "vocab.txt"
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "mole", "##cule", "is", "."]
    file.write_text("\n".join(entries) + "\n")
    return file


def test_subwords_are_uncased_word_pieces_without_special_tokens(vocabulary):
    texts = ["The molecule is xyz.", "[CLS] the [SEP]", ""]
    assert text.subwords(texts, vocabulary) == [["the", "mole", "##cule", "is", "[UNK]", "."], ["the"], []]


def test_subwords_stop_at_512(vocabulary):
    assert len(text.subwords(["the " * 600], vocabulary)[0]) == 512


def test_scibert_is_found_as_file_or_folder_and_a_wrong_vocabulary_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join("x" * text.SCIBERT_SIZES[0]))
    for place in (file, tmp_path):
        monkeypatch.setenv("BIGCHEM_SCIBERT", str(place))
        assert text.find_scibert() == file
    file.write_text("x\n" * 31116)
    with pytest.raises(UserError, match="31116 entries"):
        text.find_scibert()
    monkeypatch.setenv("BIGCHEM_SCIBERT", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="BIGCHEM_SCIBERT"):
        text.find_scibert()


@pytest.fixture
def nltk_data(tmp_path, monkeypatch):
    """An empty WordNet in nltk's layout: METEOR by exact matches and stems alone."""
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    names = [f"{kind}.{part}" for kind in ("index", "data") for part in ("noun", "verb", "adj", "adv")]
    names += [f"{part}.exc" for part in ("noun", "verb", "adj", "adv")]
    for name in (*names, "lexnames", "index.sense", "cntlist.rev"):
        (folder / name).write_text("  1 WordNet 3.0\n" if name.startswith("data") else "")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path / "absent"), str(tmp_path)])
    return str(tmp_path)


def test_meteor_by_hand(nltk_data):
    references = [["the", "cat", "sat"], ["running", "far"], ["a"], ["a"]]
    predictions = [["the", "cat", "sat"], ["runs", "far", "off"], ["b"], []]
    # Lavie and Agarwal 2007: P R / (.9 P + .1 R) * (1 - .5 (chunks / matches)^3)
    one = 1 - 0.5 * (1 / 3) ** 3
    stems = (2 / 3 * 1) / (0.9 * 2 / 3 + 0.1 * 1) * (1 - 0.5 * (1 / 2) ** 3)
    assert text.meteor(references, predictions, text.find_wordnet()) == pytest.approx([one, stems, 0, 0])


def test_wordnet_is_found_in_the_archive_that_nltks_downloader_leaves(nltk_data, monkeypatch, tmp_path):
    packed = tmp_path / "packed"
    shutil.make_archive(str(packed / "corpora" / "wordnet"), "zip", f"{nltk_data}/corpora", "wordnet")
    monkeypatch.setattr("nltk.data.path", [str(packed)])
    assert text.find_wordnet() == str(packed)
    assert text.meteor([["a", "b"]], [["a", "b"]], str(packed)) == pytest.approx([1 - 0.5 * (1 / 2) ** 3])


def test_wordnet_that_is_not_on_nltks_path_is_none(monkeypatch):
    monkeypatch.setattr("nltk.data.path", [])
    assert text.find_wordnet() is None
