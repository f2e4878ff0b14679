"""Metrics' names as people write them, for figures and tables of a paper (PURE)."""

import re

NAMES = {
    "loss": "loss",
    "exact": "exact match",
    "meteor": "METEOR",
    "bertscore": "BERTScore",
    "text2mol": "Text2Mol",
    "fcd": "FCD",
    "maccs": "MACCS similarity",
    "rdk": "RDK similarity",
    "morgan": "Morgan similarity",
    "levenshtein": "edit distance",
    "bleu": "BLEU",
    "bleu_modified": "modified BLEU",
    "round_trip": "round-trip accuracy",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "pearson": "Pearson r",
    "spearman": "Spearman ρ",
    "f1": "F1",
    "mcc": "MCC",
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
}
"""Names that no rule gives."""
SUFFIXES = {
    "words": "words",
    "nostereo": "without stereo",
    "maxfrag": "largest fragment",
}
"""Of a variant: bleu4_words is BLEU-4 (words)."""
RULES = (
    (re.compile(r"bleu(\d)"), r"BLEU-\1"),
    (re.compile(r"rouge(\w)"), r"ROUGE-\1"),
    (re.compile(r"top(\d+)"), r"top-\1 accuracy"),
    (re.compile(r"lev(\d+)"), r"\1 % accuracy"),
)
UNITS = {"loss": "nats per token", "levenshtein": "characters"}


def written(metric: str) -> str:
    """A metric's name: BLEU-4, exact match, top-1 accuracy. Of a package's metric, its own."""
    if metric in NAMES:
        return NAMES[metric]
    base, _, suffix = metric.rpartition("_")
    if suffix in SUFFIXES and base:
        return f"{written(base)} ({SUFFIXES[suffix]})"
    for pattern, name in RULES:
        if pattern.fullmatch(metric):
            return pattern.sub(name, metric)
    return metric.replace("_", " ")


def with_unit(metric: str) -> str:
    """The name with its unit, if it has one: loss (nats per token)."""
    return f"{written(metric)} ({UNITS[metric]})" if metric in UNITS else written(metric)
