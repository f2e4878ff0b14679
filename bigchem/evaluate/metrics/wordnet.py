"""WordNet 3.0 for METEOR: words to synsets, each a few words of one meaning.

nltk's reader parses all of WordNet before the first word, a second in each process. METEOR needs only the lemma names
of a few thousand words, so this looks them up in the files (format: wndb(5WN)) on demand. Base forms follow nltk's
rules, and a test compares the results.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

_FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}


@dataclass(frozen=True)
class Lemma:
    """A word, or words joined by underscores."""

    text: str

    def name(self) -> str:
        return self.text


@dataclass(frozen=True)
class Synset:
    """Lemmas with one meaning."""

    words: tuple[Lemma, ...]

    def lemmas(self) -> tuple[Lemma, ...]:
        return self.words


class WordNet:
    """The corpus at one of nltk's pointers (nltk.data.find), unpacked or zipped."""

    def __init__(self, corpus: Any) -> None:
        self._parts = [_Part(corpus, part, suffix) for part, suffix in _FILES.items()]
        self.synsets = cache(self._synsets)

    def _synsets(self, word: str) -> list[Synset]:
        """Synsets of a word and of its base forms. Order and repetitions differ from nltk's."""
        lower = word.lower()
        return [part.synset(offset) for part in self._parts for form in part.forms(lower) for offset in part.of(form)]


class _Part:
    """One part of speech: nouns, verbs, adjectives or adverbs."""

    def __init__(self, corpus: Any, part: str, suffix: str) -> None:
        from nltk.corpus.reader.wordnet import WordNetCorpusReader

        self._endings: list[tuple[str, str]] = WordNetCorpusReader.MORPHOLOGICAL_SUBSTITUTIONS[part]
        index = _read(corpus, f"index.{suffix}").decode()
        self._index = dict(line.split(" ", 1) for line in index.splitlines() if line[:1].strip())
        exceptions = (line.split() for line in _read(corpus, f"{suffix}.exc").decode().splitlines())
        self._exceptions = {inflected: forms for inflected, *forms in exceptions}
        self._data = _read(corpus, f"data.{suffix}")

    def forms(self, word: str) -> set[str]:
        """The word and its base forms that occur in this part."""
        bases = self._exceptions.get(word)
        if bases is None:
            bases = [word[: -len(old)] + new for old, new in self._endings if word.endswith(old)]
        return {form for form in (word, *bases) if form in self._index}

    def of(self, form: str) -> list[int]:
        """Offsets of a word's synsets in the data. Its index line: part, number of synsets, pointers, ..., offsets."""
        fields = self._index[form].split()
        return [int(offset) for offset in fields[-int(fields[1]) :]]

    def synset(self, offset: int) -> Synset:
        """The synset at an offset. Its line: offset, file, kind, number of words in hexadecimal, word, sense, word,
        sense ...; an adjective may carry its position in parentheses."""
        words = int(self._data[offset + 14 : offset + 16], 16)
        fields = self._data[offset + 17 : self._data.index(b"|", offset)].decode().split(maxsplit=2 * words)
        return Synset(tuple(Lemma(word.split("(")[0]) for word in fields[: 2 * words : 2]))


def _read(corpus: Any, name: str) -> bytes:
    with corpus.join(name).open() as file:
        content: bytes = file.read()
    return content
