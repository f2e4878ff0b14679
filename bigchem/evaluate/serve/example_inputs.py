"""An example input of each kind of task: for the page's buttons and for model cards."""

from bigchem.tasks import Task

_BY_SOURCE = {
    "chemistry": "CC(=O)Oc1ccccc1C(=O)O",
    "reactants": "CC(=O)Cl.NCc1ccccc1",
    "reaction": "CC(=O)Cl.NCc1ccccc1>>CC(=O)NCc1ccccc1",
    "protein": "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ",
}
_TEXT_BY_FAMILY = {
    "molecule": "The molecule is a primary alcohol that is ethanol in which one hydrogen is replaced by phenyl.",
    "procedure": "The mixture was stirred for 2 h, then washed with brine and dried over sodium sulfate.",
}


def example_input(task: Task) -> str | None:
    """An input that suits a task; None if none does, or if its prompts take further columns."""
    if task.fields:
        return None
    return _TEXT_BY_FAMILY.get(task.family) if task.source_domain == "text" else _BY_SOURCE.get(task.source_domain)
