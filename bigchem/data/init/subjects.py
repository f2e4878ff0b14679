"""Tables about a reaction, a molecule or a protein in each row: a task for each other column. Pure."""

import re
from dataclasses import replace

from bigchem.data.init import proposals
from bigchem.data.init.columns import Column
from bigchem.data.init.computed import computed_by, has_formulas
from bigchem.data.init.proposals import TASK_COLUMNS, Found, TaskGuess

_PREDICTED = re.compile(r"predicted|\bpred\b|_pred|^pred_|calculated|\bcalc\b|_calc|estimated", re.IGNORECASE)
_SPLIT = re.compile(r"(?:^|[\W_])(?:split|set|subset|fold|partition)s?$|^split", re.IGNORECASE)
_ID = re.compile(r"(?:^|[\W_])(?:id|cid|sid|uuid|inchikey)$", re.IGNORECASE)
_MAIN = ("smiles", "canonical_smiles", "isosmiles", "isomeric_smiles", "drug", "molecule", "mol", "compound", "selfies")
"""Names of the column that a table is about, if several have SMILES."""
_MAX_TASKS = 40
_LISTED = 6
"""Labels up to which a prompt names each."""


def from_subject(found: Found) -> None:
    """Proposes tasks about what the table is about; span corruption if there is nothing to predict."""
    subject, texts = _subject(found), found.of_kind("text")
    if subject is not None:
        if subject.kind == "reaction":
            found.add_shipped({"reaction": subject}, ("reactants", "chemistry"), ("chemistry", "reactants"))
        elif subject.kind == "smiles":
            _translations(found, subject)
        elif texts:
            name = f"{proposals.slug(subject.name)}_description"
            found.add(proposals.task(name, subject, texts[0]), subject, texts[0])
        _properties(found, subject)
    if not found.sources and subject is not None and subject.kind == "smiles":
        found.add_spans("smiles", subject)
    elif not found.sources and texts:
        found.add_spans("text", texts[0])


def _subject(found: Found) -> Column | None:
    """The column that the table is about."""
    for kind in ("reaction", "smiles", "protein"):
        if candidates := found.of_kind(kind):
            named = [column for name in _MAIN for column in candidates if column.name.lower() == name]
            chosen = (named or candidates)[0]
            for other in candidates:
                if other != chosen:
                    found.reasons[other.name] = f"{other.why}; the rows are about {chosen.name}"
            return chosen
    return None


def _translations(found: Found, smiles: Column) -> None:
    """Between a molecule and its captions, names and formula."""
    if texts := found.of_kind("text"):
        found.add_shipped({"smiles": smiles, "text": texts[0]}, ("chemistry", "text"), ("text", "chemistry"))
    for name in found.of_kind("name"):
        called = proposals.slug(name.name)
        there = found.add(proposals.task(f"smiles_to_{called}", smiles, name), smiles, name)
        asked = "Write in SMILES the molecule with the name: "
        back = found.add(proposals.task(f"{called}_to_smiles", name, smiles, prompt=asked), name, smiles)
        for one, other in ((there, back), (back, there)):
            record = {**(found.tasks[one].record or {}), "inverse": other}
            found.tasks[one] = replace(found.tasks[one], record=record)
    for formula in found.of_kind("formula"):
        if not has_formulas(found.cells[smiles.name], found.cells[formula.name]):
            found.reasons[formula.name] = f"not the formulas of {smiles.name}"
            continue
        found.add(proposals.task(f"smiles_to_{proposals.slug(formula.name)}", smiles, formula), smiles, formula)


def _properties(found: Found, subject: Column) -> None:
    """A task for each number and label that is measured; labels of no and yes together."""
    measured: list[Column] = []
    for column in found.of_kind("number", "label"):
        if reason := _no_property(found, subject, column):
            found.reasons[column.name] = f"{column.why}; {reason}"
        elif len(measured) == _MAX_TASKS:
            found.reasons[column.name] = f"{column.why}; there are {_MAX_TASKS} tasks already"
        else:
            measured.append(column)
    binary = [column for column in measured if column.binary]
    if len(binary) > 1:
        _several_labels(found, subject, binary)
        measured = [column for column in measured if column not in binary]
    protein = next(iter(found.of_kind("protein")), None) if subject.kind == "smiles" else None
    for column in measured:
        called = proposals.called(column.name, found.stem)
        prompt = proposals.prompt_for(subject, column, proposals.words(called))
        if protein is not None and protein.name.replace("_", "").replace(" ", "").isalnum():
            prompt = f"{prompt.removesuffix(': ')} and the protein {{{protein.name}}}: "
            found.in_prompts.add(protein.name)
        found.add(proposals.task(proposals.slug(called), subject, column, prompt=prompt), subject, column)


def _no_property(found: Found, subject: Column, column: Column) -> str | None:
    """Why a column of numbers or labels is nothing to predict."""
    if column.name.lower() in TASK_COLUMNS:
        return "not a task of its own"
    if "year" in column.name.lower():
        return f"years may split the rows: split_by = '{column.name}'"
    if _PREDICTED.search(column.name):
        return "by its name a prediction, not a measurement"
    if column.kind == "label" and _SPLIT.search(column.name):
        return f"by its name it splits the rows: split_column = '{column.name}' and split_names say how"
    if not column.binary and _ID.search(column.name):
        return "by its name an identifier"
    by = computed_by(found.cells[subject.name], found.cells[column.name]) if subject.kind == "smiles" else None
    return None if by is None else f"they follow from {subject.name}: {by}"


def _several_labels(found: Found, subject: Column, binary: list[Column]) -> None:
    """One task for columns of no and yes."""
    names = [column.name for column in binary]
    asked = ", ".join(map(proposals.words, names)) if len(names) < _LISTED else proposals.words(found.stem)
    domain = proposals.ends_of(subject, binary[0])[0]
    prompt = proposals.prompt_for(subject, binary[0], asked)
    record = {"source": domain, "target": "labels", "prompt": prompt, "labels": names}
    why = {"source": f"{subject.name}: {subject.why}", "labels": f"{len(names)} columns of no and yes"}
    found.in_prompts |= set(names)
    found.add(TaskGuess(proposals.slug(found.stem), domain, "labels", record, why), subject)
