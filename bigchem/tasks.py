"""The five tasks, and span corruption for unlabelled corpora.

Prompts are Text+Chem T5's (github.com/GT4SD/multitask_text_and_chemistry_t5), byte for byte, so its published
checkpoints can be used and compared.
"""

from __future__ import annotations

from dataclasses import dataclass

from bigchem.base.errors import unknown


@dataclass(frozen=True)
class Task:
    """source_domain, target_domain: "chemistry" or "text". prompt: precedes every source. headline: the task's metric
    in short tables."""

    name: str
    source_domain: str
    target_domain: str
    prompt: str
    headline: str

    @property
    def cross_domain(self) -> bool:
        """Whether the task translates between chemistry and text."""
        return self.source_domain != self.target_domain


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("captioning", "chemistry", "text", "Caption the following SMILES: ", "bleu4"),
        Task("generation", "text", "chemistry", "Write in SMILES the described molecule: ", "exact"),
        Task("forward", "chemistry", "chemistry", "Predict the product of the following reaction: ", "top1"),
        Task(
            "retrosynthesis",
            "chemistry",
            "chemistry",
            "Predict the reaction that produces the following product: ",
            "top1",
        ),
        Task("actions", "text", "text", "Which actions are described in the following paragraph: ", "bleu2"),
    )
}
TASK_NAMES: tuple[str, ...] = tuple(TASKS)

SPAN_TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("text_spans", "text", "text", "", "loss"),
        Task("smiles_spans", "chemistry", "chemistry", "", "loss"),
    )
}
"""T5's span corruption over unlabelled corpora, as in MolT5's pre-training: no prompt, no stored target, no score."""

TRAINABLE: dict[str, Task] = {**TASKS, **SPAN_TASKS}
TRAINABLE_NAMES: tuple[str, ...] = tuple(TRAINABLE)
"""A task's id in shards, batches and losses is its position here."""


def task_id(name: str, where: str | None = None) -> int:
    """A trainable task's id; UserError for an unknown name."""
    if name not in TRAINABLE:
        unknown("task", name, list(TRAINABLE_NAMES), where)
    return TRAINABLE_NAMES.index(name)


def check_labelled(name: str, where: str | None = None) -> None:
    """UserError unless the task is one of the five that have predictions and scores."""
    if name not in TASKS:
        unknown("task", name, list(TASK_NAMES), where)
