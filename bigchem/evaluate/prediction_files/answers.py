"""Sources, references and predictions as scored: read by bigchem.chemistry, repairs counted."""

from collections import Counter
from collections.abc import Collection, Sequence

from bigchem.chemistry import REPAIRS, STRIPPED, Reading, read_answer
from bigchem.evaluate.prediction_files.tables import Examples
from bigchem.tasks import Task


def as_scored(task: Task, examples: Examples, strip: Collection[str] = STRIPPED) -> Examples:
    """The examples of a task, each text read by chemistry.read_answer; repairs are added to their counts."""
    counts = Counter[str]()

    def read(groups: Sequence[Sequence[str]], domain: str, side: str) -> list[list[str]]:
        readings = _read(groups, domain, strip)
        counts.update(f"{side}: {REPAIRS[name]}" for group in readings for reading in group for name in reading.repairs)
        return [[reading.text for reading in group] for group in readings]

    return examples._replace(
        sources=read([examples.sources], task.source_domain, "sources")[0],
        references=read(examples.references, task.target_domain, "references"),
        predictions=read(examples.predictions, task.target_domain, "predictions"),
        counts={**examples.counts, **counts},
    )


def _read(groups: Sequence[Sequence[str]], domain: str, strip: Collection[str]) -> list[list[Reading]]:
    """Every text of one side. If most texts that are not in doubt are SELFIES, those in doubt are SELFIES too."""
    readings = [[read_answer(text, domain, strip) for text in texts] for texts in groups]
    found = Counter(name for group in readings for reading in group for name in reading.repairs)
    if found["doubtful"] and 2 * found["selfies"] > sum(map(len, groups)) - found["doubtful"]:
        for group, texts in zip(readings, groups, strict=True):
            for place, text in enumerate(texts):
                if "doubtful" in group[place].repairs:
                    group[place] = read_answer(text, domain, strip, selfies=True)
    return readings
