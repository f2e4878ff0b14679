"""Sources, references and predictions as scored: read by bigchem.chemistry, repairs counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from bigchem.chemistry import REPAIRS, STRIPPED, read_answer
from bigchem.evaluate.prediction_files.tables import Examples
from bigchem.tasks import TASKS


def as_scored(task: str, examples: Examples, strip: Collection[str] = STRIPPED) -> Examples:
    """The examples of a task, each text read by chemistry.read_answer; repairs are added to their counts."""
    about, counts = TASKS[task], Counter[str]()

    def read(texts: Sequence[str], domain: str, side: str) -> list[str]:
        readings = [read_answer(text, domain, strip) for text in texts]
        counts.update(f"{side}: {REPAIRS[name]}" for reading in readings for name in reading.repairs)
        return [reading.text for reading in readings]

    return examples._replace(
        sources=read(examples.sources, about.source_domain, "sources"),
        references=[read(several, about.target_domain, "references") for several in examples.references],
        predictions=[read(ranked, about.target_domain, "predictions") for ranked in examples.predictions],
        counts={**examples.counts, **counts},
    )
