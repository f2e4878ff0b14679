"""The hub's metadata of a model card: the YAML at its head, by huggingface_hub's own types."""

import re
from typing import Any

from bigchem.evaluate.protocol.score_task import Score
from bigchem.sharing.contents import UNKNOWN, Card, Results
from bigchem.sharing.readme import prompt_of
from bigchem.tasks import CHEMISTRY, Task

PIPELINE = "text2text-generation"
"""What the model does. transformers 5 has no pipeline of that name: hence the card's snippet."""
_ON_THE_HUB = {
    r"bleu\d?": "bleu",
    r"rouge[12L]": "rouge",
    "meteor": "meteor",
    "exact|exact_match": "exact_match",
    r"top\d+|accuracy": "accuracy",
    "f1": "f1",
    "mcc": "matthews_correlation",
    "roc_auc": "roc_auc",
    "mae": "mae",
}
"""Metrics of the hub by names of ours; others keep their own."""


def metadata(card: Card) -> str:
    """The YAML between the card's first two lines of dashes. The licence is `unknown` unless somebody has stated it."""
    from huggingface_hub import ModelCardData

    trained, tasks = card.trained, list((card.tasks or {}).values())
    base, sources = trained.base, trained.data.sources or []
    scores = _headlines(tasks, card.results)
    chemistry = any({task.source_domain, task.target_domain} & set(CHEMISTRY) for task in tasks)
    found = ModelCardData(
        license=trained.license or UNKNOWN,
        library_name="transformers",
        pipeline_tag=PIPELINE,
        base_model=base.name if base is not None and base.on_hub else None,
        datasets=sorted({source.hub for source in sources if source.hub}) or None,
        metrics=sorted({_hub_metric(score.metric) for score in scores}) or None,
        tags=["t5", "bigchem", *(["chemistry"] if chemistry else [])],
        model_name=card.title if scores else None,
        eval_results=[_result(score, card, card.results) for score in scores if card.results] or None,
        widget=[{"text": prompt_of(task), "example_title": task.name} for task in tasks] or None,
    )
    return str(found.to_yaml())


def _headlines(tasks: list[Task], results: Results | None) -> list[Score]:
    """The headline of each task, where it has a value: the hub shows a short list; the card's table has all."""
    headlines = {task.name: task.headline for task in tasks}
    scores = [] if results is None else results.metrics
    return [s for s in scores if not s.group and s.value is not None and headlines.get(s.task) == s.metric]


def _result(score: Score, card: Card, results: Results) -> Any:
    from huggingface_hub import EvalResult

    hubs = sorted({source.hub for source in card.trained.data.sources or [] if source.hub})
    single = hubs[0] if len(hubs) == 1 else None
    interval = {} if score.low is None or score.high is None else {"low": score.low, "high": score.high}
    return EvalResult(
        task_type=PIPELINE,
        task_name=score.task,
        dataset_type=single or "bigchem",
        dataset_name=single or f"data {results.data_fingerprint}",
        dataset_split=results.split,
        metric_type=_hub_metric(score.metric),
        metric_name=score.metric,
        metric_value=score.value,
        metric_args={"definition": score.definition, "examples": score.n, **interval},
    )


def _hub_metric(name: str) -> str:
    return next((known for pattern, known in _ON_THE_HUB.items() if re.fullmatch(pattern, name)), name)
