"""Synonyms equal nltk's, for words of a small WordNet made here and of the real one."""

from __future__ import annotations

import random
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nltk
import pytest
from nltk.corpus.reader.wordnet import WordNetCorpusReader
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score
from real_files import REAL_DATA

from bigchem.evaluate.metrics.text import meteor
from bigchem.evaluate.metrics.wordnet import WordNet

ARCHIVE = REAL_DATA.parent / "vocab" / "nltk_wordnet.tgz"
SYNSETS = {
    "noun": ["acid dose", "bus coach autobus", "man adult_male", "Loss loss", "ox"],
    "verb": ["dissolve resolve fade_out", "man", "wash", "tie"],
    "adj": ["galore(ip) abundant(p)", "acid sour", "big large"],
    "adv": ["well good"],
}
EXCEPTIONS = {"noun": "oxen ox\nmen man\n", "verb": "tying tie\n", "adj": "", "adv": "better well\n"}


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Any]:
    """nltk's pointer to a WordNet of a few words, in WordNet's own format."""
    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for name in ("index.sense", "cntlist.rev"):
        (folder / name).write_text("")
    (folder / "lexnames").write_text("00\tall\t1\n")
    for suffix, kind in (("noun", "n"), ("verb", "v"), ("adj", "a"), ("adv", "r")):
        data, index = "  1 a licence\n", dict[str, list[int]]()
        for words in map(str.split, SYNSETS[suffix]):
            for word in {w.split("(")[0].lower() for w in words}:
                index.setdefault(word, []).append(len(data))
            listed = " ".join(f"{word} 0" for word in words)
            frames = " 00" if kind == "v" else ""
            data += f"{len(data):08d} 00 {kind} {len(words):02x} {listed} 000{frames} | a gloss\n"
        lines = [
            f"{word} {kind} {len(places)} 1 @ {len(places)} 0 {' '.join(f'{place:08d}' for place in places)}  \n"
            for word, places in sorted(index.items())
        ]
        (folder / f"index.{suffix}").write_text("  1 a licence\n" + "".join(lines))
        (folder / f"data.{suffix}").write_text(data)
        (folder / f"{suffix}.exc").write_text(EXCEPTIONS[suffix])
    nltk.data.path.append(str(tmp_path))
    yield nltk.data.find("corpora/wordnet", [str(tmp_path)])
    nltk.data.path.remove(str(tmp_path))


class English(WordNetCorpusReader):
    """nltk's reader without its map to other versions, which METEOR never uses."""

    def map_wn(self, version: str = "wordnet") -> None:
        return None


def names(reader: Any, word: str) -> set[str]:
    return {lemma.name() for synset in reader.synsets(word) for lemma in synset.lemmas()}


def reference(corpus: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no multilingual WordNet
        return English(corpus, None)


@pytest.mark.parametrize(
    ("word", "synonyms"),
    [
        ("acid", {"acid", "dose", "sour"}),  # two parts of speech
        ("buses", {"bus", "coach", "autobus"}),
        ("men", {"man", "adult_male"}),  # an exception; as a verb it is not a form of "man"
        ("Dissolving", {"dissolve", "resolve", "fade_out"}),
        ("loss", {"Loss", "loss"}),
        ("galore", {"galore", "abundant"}),  # without its position
        ("tying", {"tie"}),
        ("better", {"well", "good"}),
        ("xyz", set()),
        ("", set()),
    ],
)
def test_synonyms_by_hand_and_by_nltk(corpus: Any, word: str, synonyms: set[str]) -> None:
    assert names(WordNet(corpus), word) == synonyms == names(reference(corpus), word)


def test_meteor_is_nltks_with_its_own_wordnet(corpus: Any, tmp_path: Path) -> None:
    words = [word for listed in SYNSETS.values() for group in listed for word in group.split()]
    words += ["oxen", "tying", "buses", "the", "it", "dissolves"]
    rng, wordnet, stemmer = random.Random(0), reference(corpus), PorterStemmer()
    pairs = [[rng.choices(words, k=rng.randrange(8)) for _ in range(2)] for _ in range(200)]
    expected = [single_meteor_score(*pair, stemmer=stemmer, wordnet=wordnet) for pair in pairs]
    assert meteor(*zip(*pairs, strict=True), str(tmp_path)).tolist() == expected
    assert len({round(one, 3) for one in expected}) > 50


@pytest.mark.thorough
@pytest.mark.data
@pytest.mark.skipif(not ARCHIVE.is_file(), reason="no WordNet")
def test_synonyms_of_real_words_and_of_inflections_are_nltks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setattr("nltk.data.path", [str(tmp_path)])
    corpus = nltk.data.find("corpora/wordnet")
    ours, theirs = WordNet(corpus), reference(corpus)
    words = random.Random(0).sample(sorted(theirs.all_lemma_names()), 1500)
    words += [word + ending for word in words[:500] for ending in ("s", "es", "ed", "ing", "er", "ies")]
    words += ["men", "better", "ran", "lysed", "##ed", "(", "é", "A", "hydroxy", "a-", "s"]
    assert [names(ours, word) for word in words] == [names(theirs, word) for word in words]
