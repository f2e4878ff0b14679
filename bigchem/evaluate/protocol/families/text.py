"""The metrics of text, for tasks from text to text and for all that is written in words."""

from bigchem.evaluate.metrics.intervals import share_of
from bigchem.evaluate.protocol.metric import Metric, bleu, similarity


def _rouge(column: int, name: str) -> Metric:
    meaning = f"Mean {name} F of the raw texts (package rouge_score, no stemming)."
    return Metric(name, f"{name}/molt5-v1", meaning, lambda pairs: similarity(pairs.rouge[:, column]))


_WORD = "over lower-cased words and single punctuation marks, no smoothing; not comparable with published numbers"

EXACT_TEXT = Metric(
    "exact",
    "exact/text-v1",
    "Share of predictions equal to the reference's text, surrounding white space ignored.",
    lambda p: share_of(p.same_text),
)
WORD_BLEU = (
    Metric("bleu2_words", "bleu2/words-v1", f"Corpus BLEU-2 {_WORD}.", lambda p: bleu(p.word_counts, 2)),
    Metric("bleu4_words", "bleu4/words-v1", f"Corpus BLEU-4 {_WORD}.", lambda p: bleu(p.word_counts, 4)),
)
ROUGE = (_rouge(0, "rouge1"), _rouge(1, "rouge2"), _rouge(2, "rougeL"))
TEXT_SIMILARITY = Metric(
    "levenshtein_similarity",
    "levenshtein_similarity/text-v1",
    "Mean of 1 - Levenshtein distance / longer length, in characters, surrounding white space ignored.",
    lambda p: similarity(p.similarity),
)

TEXT = (EXACT_TEXT, *WORD_BLEU, *ROUGE, TEXT_SIMILARITY)
