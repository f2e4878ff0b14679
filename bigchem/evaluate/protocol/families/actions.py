"""The metrics of actions."""

from collections.abc import Callable

from bigchem.evaluate.metrics import actions
from bigchem.evaluate.metrics.intervals import Statistic, ratio_of, share_of
from bigchem.evaluate.protocol.families.text import EXACT_TEXT
from bigchem.evaluate.protocol.metric import Metric, bleu
from bigchem.evaluate.protocol.pairs import Pairs


def _near(percent: int) -> Metric:
    meaning = (
        f"Share of predictions with 1 - Levenshtein distance / longer length >= {percent} %, in characters, "
        "surrounding white space ignored."
    )
    return Metric(
        f"lev{percent}", f"lev{percent}/vaucher-v1", meaning, lambda pairs: share_of(pairs.similarity >= percent / 100)
    )


def _precision(name: str) -> Callable[[Pairs], Statistic]:
    return lambda pairs: ratio_of(pairs.action_matches[name][:, 0], pairs.action_matches[name][:, 1])


def _recall(name: str) -> Callable[[Pairs], Statistic]:
    return lambda pairs: ratio_of(pairs.action_matches[name][:, 0], pairs.action_matches[name][:, 2])


def _per_action(name: str) -> tuple[Metric, Metric]:
    """Precision and recall of one kind of action."""
    kind = f"of the action {name}: matched by kind within an example, whatever the content"
    precision = f"Share of predicted actions that are in the reference, {kind}."
    recall = f"Share of the reference's actions that are predicted, {kind}."
    unpredicted, unasked = "no prediction has this action", "no reference has this action"
    return (
        Metric(f"precision_{name}", f"precision_{name}/kind-v1", precision, _precision(name), undefined=unpredicted),
        Metric(f"recall_{name}", f"recall_{name}/kind-v1", recall, _recall(name), undefined=unasked),
    )


ACTIONS = (
    Metric(
        "bleu2",
        "bleu2/whitespace-v1",
        "Corpus BLEU-2 over the text split at white space, no smoothing.",
        lambda p: bleu(p.action_counts, 2),
    ),
    Metric(
        "bleu_modified",
        "bleu_modified/vaucher-v1",
        "Corpus BLEU-4 over the text split at white space, no smoothing, texts of fewer than four words padded to "
        "four (Vaucher et al. 2020).",
        lambda p: bleu(p.padded_action_counts, 4),
    ),
    EXACT_TEXT,
    _near(90),
    _near(75),
    _near(50),
    Metric(
        "precision",
        "precision/whole-v1",
        "Share of predicted actions that are in the reference, with the same kind and content.",
        _precision(actions.WHOLE),
    ),
    Metric(
        "recall",
        "recall/whole-v1",
        "Share of the references' actions that are predicted, with the same kind and content.",
        _recall(actions.WHOLE),
    ),
    *(metric for name in actions.KINDS for metric in _per_action(name)),
)
