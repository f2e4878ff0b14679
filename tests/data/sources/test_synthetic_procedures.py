"""Procedures and their action strings agree."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

from synthetic_rows import of

from bigchem.data.sources.base import Row
from bigchem.data.sources.synthetic.procedures import LONGEST, SENTENCES, procedure

AMOUNT = r" \((?:\d+(?:\.\d)? m?g, \d+(?:\.\d)? mmol|\d+ mL|\d+%|\d+(?:\.\d)? m?g, \d+(?:\.\d)? mmol, \d+%)\)"
NAME = r"[A-Za-z0-9(][A-Za-z0-9,()\- ]*?"
THING = rf"{NAME}(?:{AMOUNT})?"
PLACE = r"(?:-?\d+ °C|room temperature)"
TIME = r"(?:overnight|\d+ (?:minutes|hours?))"
ACTION = re.compile(
    "|".join(
        (
            rf"ADD {THING}(?: dropwise)?(?: at {PLACE})?(?: over {TIME})?(?: under (?:nitrogen|argon))?",
            rf"MAKESOLUTION with {THING} and {THING}",
            rf"STIR for {TIME} at {PLACE}|(?:WAIT|REFLUX|SONICATE) for {TIME}|MICROWAVE for {TIME} at {PLACE}",
            rf"SETTEMPERATURE {PLACE}|DEGAS with (?:nitrogen|argon)|PH with {NAME} to pH \d+",
            rf"QUENCH with {THING}|EXTRACT with {THING} \d x|WASH with {THING}|PARTITION with {THING} and {THING}",
            r"COLLECTLAYER (?:organic|aqueous)|PHASESEPARATION|CONCENTRATE|PURIFY|FILTER keep (?:filtrate|precipitate)",
            rf"DRYSOLUTION over \w+(?: \w+)?|DRYSOLID under vacuum|RECRYSTALLIZE from {NAME}|TRITURATE with {THING}",
            rf"YIELD {THING}",
        )
    )
)


def test_action_strings_parse_and_every_kind_occurs(corpus: list[Row]) -> None:
    kinds = Counter()
    for row in of(corpus, "actions"):
        assert row.target.endswith(".")
        for action in row.target[:-1].split("; "):
            assert ACTION.fullmatch(action), action
            kinds[action.split()[0]] += 1
    written = {word for phase in SENTENCES for _, actions in phase for word in re.findall(r"\b[A-Z]{3,}\b", actions)}
    assert set(kinds) == (written | {"PH"}) - {"SLN"}


def test_every_quantity_and_temperature_of_the_actions_is_in_the_paragraph(corpus: list[Row]) -> None:
    for row in of(corpus, "actions"):
        quantities = re.findall(r"[\d.]+ (?:mL|mg|g|mmol|hours?|minutes)\b|-?\d+ °C|\d+%", row.target)
        assert all(quantity in row.source for quantity in quantities)
        assert row.source.count(" mL") == row.target.count(" mL")


def test_paragraphs_have_one_to_five_sentences_within_the_limit() -> None:
    drawn = [procedure(Random(f"procedure {number}")) for number in range(1000)]
    sentences = Counter(len(re.findall(r"\.(?= [A-Z0-9(]|$)", text)) for text, _ in drawn)
    assert set(sentences) == {1, 2, 3, 4, 5}
    assert max(len(part) for pair in drawn for part in pair) <= LONGEST
    assert not any("{" in part or "}" in part for pair in drawn for part in pair)
