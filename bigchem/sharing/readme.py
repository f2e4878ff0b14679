"""The text of a model card: what was trained, on what, for how long, how well, and what that does not cover."""

import json
from collections.abc import Callable

from bigchem.evaluate.score_tables import markdown
from bigchem.evaluate.serve.example_inputs import example_input
from bigchem.model.presets import MAX_NEW_TOKENS, num_parameters
from bigchem.sharing.contents import UNKNOWN, Card
from bigchem.sharing.lineage import Base
from bigchem.sharing.markup import cell, code, table_of
from bigchem.tasks import CHEMISTRY, Task

SYNTHETIC = "synthetic"
"""The format of the embedded corpus, in the names of its sources."""
BEAMS = 5
"""Of the snippet."""


def text(card: Card) -> str:
    """The card without its metadata."""
    sections: dict[str, Callable[[Card], str]] = {
        "Use": _use,
        "Tasks": _tasks,
        "Training": _training,
        "Data and licences": _data,
        "Scores": _scores,
        "Limits": _limits,
    }
    parts = [f"# {card.title}", _summary(card), *(f"## {name}\n\n{make(card)}" for name, make in sections.items())]
    return "\n\n".join(parts) + "\n"


def prompt_of(task: Task) -> str:
    """A whole input of a task: its first prompt with an example, or with `...` where none suits."""
    return task.prompted(example_input(task) or "...", dict.fromkeys(task.fields, "..."))


def snippet(card: Card) -> str:
    """Python for transformers 5, which has no text2text pipeline; runs as printed."""
    task = next(iter(card.tasks.values()), None) if card.tasks else None
    asked, name = (json.dumps(text, ensure_ascii=False) for text in (prompt_of(task) if task else "...", card.name))
    return f"""\
from transformers import AutoTokenizer, T5ForConditionalGeneration

tokenizer = AutoTokenizer.from_pretrained({name})
model = T5ForConditionalGeneration.from_pretrained({name})
inputs = tokenizer([{asked}], return_tensors="pt")
outputs = model.generate(inputs.input_ids, attention_mask=inputs.attention_mask, num_beams={BEAMS})
print(tokenizer.batch_decode(outputs, skip_special_tokens=True)[0])
"""


def _summary(card: Card) -> str:
    names = None if card.tasks is None else [cell(name) for name in card.tasks]
    if names is None:
        purpose = "for tasks that its run folder does not name"
    elif not names:
        purpose = "by span corruption alone: it has not learned to answer"
    else:
        purpose = f"for {len(names)} tasks: {', '.join(names)}" if len(names) > 1 else f"for one task, {names[0]}"
    base = card.trained.base
    begun = "trained from random weights" if base is None else f"fine-tuned from {_link(base)}"
    what = f"A T5 encoder-decoder of {num_parameters(card.shape):,} parameters, {begun} {purpose}."
    if card.trained.data.sources and any(_is_synthetic(source.name) for source in card.trained.data.sources):
        what += (
            "\n\n**It was trained on bigchem's embedded corpus, which a program writes: "
            "a demonstration, of no use for chemistry.**"
        )
    return what


def _use(card: Card) -> str:
    lines = [f"```python\n{snippet(card)}```"]
    if card.tasks is not None and not card.tasks:
        lines.append("It knows no task: fine-tune it first (`bigchem fine-tune FILE --from FOLDER`).")
    else:
        lines.append(
            "The input is a prompt of a task with your text, exactly as below: the model knows no other requests. "
            "With bigchem, `bigchem predict FOLDER --task TASK INPUT` adds the prompt, repairs SMILES as the "
            "training data were repaired, and gives the k best outputs with their probabilities. It does not rewrite "
            "SMILES that are valid."
        )
        if reactions := [cell(task.name) for task in (card.tasks or {}).values() if "reactants" in _domains(task)]:
            lines.append(
                f"Give {' and '.join(reactions)} RDKit's canonical SMILES, with sorted compounds: `bigchem data "
                "build` writes reactions so."
            )
    return "\n\n".join(lines)


def _tasks(card: Card) -> str:
    if card.tasks is None:
        return "The run folder does not say which tasks were trained."
    if not card.tasks:
        return "None with targets: it was trained by span corruption alone."
    rows = card.trained.data.rows
    splits = [split for split in ("train", "valid", "test") if rows and split in rows]
    counted = (card.results.training or {}).get("examples") if card.results else None
    columns = [*(f"{split} rows" for split in splits), *(["examples seen"] if counted else [])]
    table: list[list[str]] = []
    for task in card.tasks.values():
        counts = [f"{(rows or {})[split].get(task.name, 0):,}" for split in splits]
        counts += [f"{counted.get(task.name, 0):,}"] if counted else []
        first, *others = task.prompts
        table.append([cell(task.name), task.source_domain, task.target_domain, code(first), *counts])
        table += [["", "", "", code(prompt), *("" for _ in counts)] for prompt in others]
    notes = ["`{source}` is your text; other braces are further columns."]
    for task in card.tasks.values():
        if task.labels:
            notes.append(f"Labels of {cell(task.name)}: {', '.join(map(code, task.labels))}.")
    if not splits:
        notes.append("Rows by split: unknown, as the data was not at hand at the export.")
    return table_of(("task", "from", "to", "prompt", *columns), table) + "\n\n" + " ".join(notes)


def _training(card: Card) -> str:
    trained, recipe = card.trained, card.trained.recipe
    planned = f" of {recipe.steps:,} planned" if recipe and recipe.steps != trained.step else ""
    rows = [
        ["steps", f"{trained.step:,}{planned}"],
        ["examples, tokens", f"{trained.examples:,} examples, {trained.tokens:,} tokens (source and target)"],
        ["weights", trained.weights],
        ["began with", _lineage(card)],
    ]
    if recipe is None:
        rows.append(["settings", "unknown: the run's configuration was not at hand at the export"])
    else:
        tempered = f", by rows ** (1 / {recipe.temperature:g})" if recipe.temperature else ""
        weights = ", ".join(f"{cell(name)} {weight:g}" for name, weight in recipe.mixture.items())
        longer = "left out" if recipe.over_caps == "drop" else "cut"
        rows += [
            ["mixture, by weight", weights + tempered],
            ["tokens of a step", f"{recipe.global_tokens:,}"],
            ["longest source", f"{recipe.max_source_tokens:,} tokens; longer ones were {longer}"],
            ["longest target", f"{recipe.max_target_tokens:,} tokens; longer ones were {longer}"],
            ["optimizer", f"{recipe.optimizer}, learning rate {recipe.lr:g}, {recipe.schedule} schedule"],
            ["precision, dropout, seed", f"{recipe.precision}, {recipe.dropout:g}, {recipe.seed}"],
        ]
    rows += [[_loss_name(name), f"{value:.4f} nats per target token"] for name, value in trained.losses.items()]
    rows += [["program", f"bigchem {trained.bigchem}"], ["proof of the export", cell(trained.proof)]]
    return table_of(("", ""), rows)


def _data(card: Card) -> str:
    data = card.trained.data
    own = code(card.trained.license) if card.trained.license else f"{UNKNOWN}; nobody has stated one"
    lines = [f"Licence of the model: {own}.", f"Fingerprint of the training data: `{data.fingerprint}`."]
    if data.sources is None:
        lines.append(f"Sources and their licences: {UNKNOWN}, as the data was not at hand at the export.")
    else:
        table = [[cell(s.name), f"{s.rows:,}", code(s.license) if s.license else UNKNOWN] for s in data.sources]
        lines.append(table_of(("source", "rows read", "licence"), table))
    if card.trained.base:
        lines.append("What the base model was trained on, and under which terms, its own card says.")
    return "\n\n".join(lines)


def _scores(card: Card) -> str:
    results = card.results
    if results is None:
        return "None: these weights have not been evaluated. `bigchem evaluate` writes them here."
    own = results.data_fingerprint == card.trained.data.fingerprint
    where = "the training data's folder" if own else f"other data, `{cell(results.data_fingerprint)}`"
    settings, beams = results.decoding, results.decoding.get("num_beams", 1)
    search = "greedy" if beams == 1 else f"beam search with {beams} beams"
    known = [score for score in results.metrics if score.value is not None]
    most = {score.task: max(one.n for one in known if one.task == score.task) for score in known}
    shown = [score for score in known if score.interval != "too few" or score.n == most[score.task]]
    return (
        f"On the {cell(results.split)} split of {where}, with 95 % intervals where they exist. "
        f"Decoding: {search}, {settings.get('num_return', 1)} kept, "
        f"at most {settings.get('max_new_tokens', 0)} new tokens, sources cut at {results.max_source_tokens} tokens, "
        f"{cell(results.precision)}. Scores of different definitions are not comparable. Not listed: those that could "
        f"not be computed, and those of the few examples with a rare feature.\n\n{markdown(shown)}"
    ).rstrip()


def _limits(card: Card) -> str:
    trained, recipe = card.trained, card.trained.recipe
    found = ["Outputs are those of a language model: fluent, and possibly wrong. Check them before use."]
    if card.tasks and any(task.target_domain in CHEMISTRY for task in card.tasks.values()):
        found.append("Outputs in SMILES need not be valid, nor the molecule that was asked for. Parse them.")
    if recipe is not None:
        longest = f"{recipe.max_source_tokens} tokens, no target of more than {recipe.max_target_tokens}"
        found.append(f"In this training it saw no source of more than {longest}.")
        if trained.step < recipe.steps:
            found.append(f"The weights are of step {trained.step:,}; the run was planned for {recipe.steps:,}.")
    found.append(f"`generate` is greedy unless told otherwise (above: {BEAMS} beams), at most {MAX_NEW_TOKENS} tokens.")
    if card.results is None:
        found.append("How good it is has not been measured.")
    elif card.tasks and (missing := set(card.tasks) - {score.task for score in card.results.metrics}):
        found.append(f"Not evaluated: {', '.join(cell(name) for name in card.tasks if name in missing)}.")
    found.append("Bias, toxicity and hazardous uses of its outputs have not been examined.")
    return "\n".join(f"- {line}" for line in found)


def _lineage(card: Card) -> str:
    base = card.trained.base
    if base is None:
        return "random weights"
    steps = []
    for one in base.chain():
        about = [] if one.revision is None else [f"revision {cell(one.revision)[:12]}"]
        about += [] if one.step is None else [f"step {one.step:,}"]
        about += [] if one.data is None else [f"data `{cell(one.data)}`"]
        about += [] if one.on_hub or one.data else ["a local folder"]
        steps.append(cell(one.name) + (f" ({', '.join(about)})" if about else ""))
    return ", which began with ".join(steps)


def _link(base: Base) -> str:
    return f"[{cell(base.name)}](https://huggingface.co/{base.name})" if base.on_hub else cell(base.name)


def _loss_name(key: str) -> str:
    name, _, task = key.partition("/")
    kind = "validation loss" if name == "valid_loss" else "training loss"
    return f"{kind}, {cell(task)}" if task else kind


def _domains(task: Task) -> tuple[str, str]:
    return task.source_domain, task.target_domain


def _is_synthetic(source: str) -> bool:
    return source.split(" ", maxsplit=1)[0] == SYNTHETIC
