"""Metrics of text: corpus BLEU, ROUGE, METEOR, and their tokens."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache, reduce
from operator import or_
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigchem.base.errors import UserError
from bigchem.evaluate.metrics.wordnet import WordNet

Floats = NDArray[np.float64]

SCIBERT_SIZES = (31089, 31090)
"""Lines of scibert_scivocab_uncased: 31,090 by its configuration, one fewer in the copy behind our reference scores.
The cased vocabulary has 31,116, BERT's 30,522."""
_WORD = re.compile(r"\w+|[^\w\s]")
_SPECIAL = frozenset(("[PAD]", "[CLS]", "[SEP]"))


def words(text: str) -> list[str]:
    """Lower-cased runs of word characters; every other visible character is a token."""
    return _WORD.findall(text.lower())


def find_scibert() -> Path | None:
    """SciBERT's vocab.txt: $BIGCHEM_SCIBERT, the file or its folder; None if it is not set.

    UserError if the variable points nowhere, or if the file is another vocabulary.
    """
    given = os.environ.get("BIGCHEM_SCIBERT")
    if not given:
        return None
    file = Path(given) / "vocab.txt" if Path(given).is_dir() else Path(given)
    if not file.is_file():
        raise UserError("no vocab.txt here", f"BIGCHEM_SCIBERT={given}", "point it at SciBERT's vocab.txt")
    size = len(file.read_bytes().rstrip(b"\n").split(b"\n"))
    if size not in SCIBERT_SIZES:
        hint = f"scibert_scivocab_uncased has {SCIBERT_SIZES[-1]}; another vocabulary gives other scores"
        raise UserError(f"{size} entries: not SciBERT's uncased vocabulary", str(file), hint)
    return file


def subwords(texts: Sequence[str], vocabulary: Path) -> list[list[str]]:
    """WordPiece tokens (uncased, the first 512, no special tokens), as from BertTokenizerFast.tokenize."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    tokenizer.enable_truncation(512)
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [[token for token in text.tokens if token not in _SPECIAL] for text in encoded]


def bleu_counts(
    references: Sequence[Sequence[Sequence[str]]], predictions: Sequence[Sequence[str]], order: int
) -> Floats:
    """What each prediction adds to corpus BLEU: [predictions, 2 + 2 * order]. references: one or several each.

    Columns: predicted length, reference length, then for n = 1 .. order the matched and the predicted n-grams. With
    several references, the length nearest to the prediction's counts, and each n-gram's maximum over them. A prediction
    without n-grams adds one predicted n-gram, as in nltk.
    """
    rows = np.empty((len(references), 2 + 2 * order))
    for row, options, prediction in zip(rows, references, predictions, strict=True):
        nearest = min((abs(len(option) - len(prediction)), len(option)) for option in options)[1]
        row[:2] = len(prediction), nearest
        for n in range(1, order + 1):
            row[2 * n + 1] = max(1, len(prediction) - n + 1)
            if prediction in options:  # common, and counting is slow
                row[2 * n] = max(0, len(prediction) - n + 1)
                continue
            predicted = _ngrams(prediction, n)
            wanted = reduce(or_, (_ngrams(option, n) for option in options))
            row[2 * n] = sum(min(count, wanted[ngram]) for ngram, count in predicted.items() if ngram in wanted)
    return rows


def bleu(sums: Floats, order: int) -> Floats:
    """Corpus BLEU (Papineni et al. 2002) with uniform weights from summed bleu_counts [..., >= 2 + 2 * order] -> [...].

    Equals nltk's corpus_bleu without smoothing: 0 if any order has no match.
    """
    predicted, reference = sums[..., 0], sums[..., 1]
    matched, total = sums[..., 2 : 2 + 2 * order : 2], sums[..., 3 : 3 + 2 * order : 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_precision = np.log(matched / total).mean(axis=-1)
        log_brevity = np.minimum(0.0, 1.0 - reference / predicted)
    return np.where((matched > 0).all(axis=-1), np.exp(log_precision + log_brevity), 0.0)


def rouge(references: Sequence[str], predictions: Sequence[str]) -> Floats:
    """ROUGE-1, ROUGE-2 and ROUGE-L F of each pair of raw texts, without stemming: [pairs, 3].

    Bit for bit rouge_score's numbers. Its longest common subsequence, most of its time, takes six times as long as
    rapidfuzz's.
    """
    from rapidfuzz.distance import LCSseq
    from rouge_score.tokenizers import DefaultTokenizer

    tokenize = DefaultTokenizer(use_stemmer=False).tokenize
    rows = np.empty((len(references), 3))
    for row, reference, prediction in zip(rows, references, predictions, strict=True):
        wanted, made = tokenize(reference), tokenize(prediction)
        for n in (1, 2):
            sides = _ngrams(wanted, n), _ngrams(made, n)
            row[n - 1] = _f_measure((sides[0] & sides[1]).total(), sides[0].total(), sides[1].total())
        row[2] = _f_measure(LCSseq.similarity(wanted, made), len(wanted), len(made))
    return rows


def find_wordnet() -> str | None:
    """The first folder on nltk's data path ($NLTK_DATA) with corpora/wordnet (WordNet 3.0), or None."""
    import nltk

    return next((folder for folder in map(str, nltk.data.path) if _wordnet_in(folder) is not None), None)


def meteor(references: Sequence[Sequence[str]], predictions: Sequence[Sequence[str]], nltk_data: str) -> Floats:
    """METEOR of each pair of token lists (nltk's defaults: Porter stems, WordNet synonyms): [pairs].

    nltk_data: see find_wordnet.
    """
    from nltk.translate.meteor_score import single_meteor_score

    lexicon = _lexicon(nltk_data)
    return np.array(
        [
            single_meteor_score(reference, prediction, stemmer=lexicon, wordnet=lexicon)
            for reference, prediction in zip(references, predictions, strict=True)
        ]
    )


@lru_cache(maxsize=1)
def _lexicon(nltk_data: str) -> SimpleNamespace:
    """nltk's stemmer with a cache, and WordNet: captions repeat a few thousand words."""
    import nltk
    from nltk.stem.porter import PorterStemmer

    if nltk_data not in nltk.data.path:  # in a spawned worker; nltk opens nothing outside its data path
        nltk.data.path.append(nltk_data)
    return SimpleNamespace(stem=cache(PorterStemmer().stem), synsets=WordNet(_wordnet_in(nltk_data)).synsets)


def _wordnet_in(folder: str) -> Any:
    """nltk's pointer to the corpus, unpacked or in nltk.downloader's archive; None if absent."""
    import nltk

    for name in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
        try:
            return nltk.data.find(name, [folder])
        except LookupError:
            continue
    return None


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))


def _f_measure(matched: int, wanted: int, made: int) -> float:
    precision, recall = matched / max(made, 1), matched / max(wanted, 1)
    return 2 * precision * recall / (precision + recall) if matched else 0.0
