"""The metrics of captioning."""

import math

from bigchem.evaluate.metrics import functional_groups
from bigchem.evaluate.metrics.intervals import mean_of, ratio_of
from bigchem.evaluate.protocol.families.text import ROUGE, WORD_BLEU
from bigchem.evaluate.protocol.metric import Metric, bleu, similarity, text2mol
from bigchem.evaluate.protocol.pairs import Pairs


def _of_references(pairs: Pairs) -> str:
    """The note with the references' own mean: they also mention parent compounds."""
    found = mean_of(pairs.reference_groups[:, 1])
    return f"of the references themselves: {found.value:.4f}" if found.n else ""


_SUBWORD = "over SciBERT WordPiece tokens (uncased, the first 512)"

CAPTIONING = (
    Metric("bleu2", "bleu2/molt5-v1", f"Corpus BLEU-2 {_SUBWORD}, no smoothing.", lambda p: bleu(p.subword_counts, 2)),
    Metric("bleu4", "bleu4/molt5-v1", f"Corpus BLEU-4 {_SUBWORD}, no smoothing.", lambda p: bleu(p.subword_counts, 4)),
    *ROUGE,
    Metric(
        "meteor",
        "meteor/molt5-v1",
        f"Mean METEOR (nltk: alpha .9, beta 3, gamma .5, Porter stems, WordNet 3.0) {_SUBWORD}.",
        lambda p: similarity(p.meteor),
    ),
    Metric(
        "bertscore",
        "bertscore/roberta-large-17-v1",
        "Mean BERTScore F (package bert_score: roberta-large, layer 17, no idf weights, not rescaled) of the raw "
        "texts.",
        lambda p: mean_of(p.bertscore),
    ),
    Metric(
        "hallucinated_groups",
        "hallucinated_groups/smarts-v1",
        f"Mean number of functional groups, of a pinned list of {len(functional_groups.GROUPS)}, "
        "that a caption names and its molecule lacks.",
        lambda p: mean_of(p.groups[:, 1], _of_references(p)),
        higher_is_better=False,
        highest=math.inf,
    ),
    Metric(
        "hallucinated_share",
        "hallucinated_share/smarts-v1",
        "Share of the functional groups named in captions, of the same list, that their molecules lack.",
        lambda p: ratio_of(p.groups[:, 1], p.groups[:, 0]),
        higher_is_better=False,
        undefined="no caption names a group of the list",
    ),
    text2mol("text_text2mol_metric.py"),
    *WORD_BLEU,
)
