"""bigchem.evaluate.metrics.actions by hand."""

import pytest

from bigchem.evaluate.metrics import actions


def test_tokens_are_split_at_white_space():
    assert actions.tokens(" ADD water (5 mL);\tSTIR. ") == ["ADD", "water", "(5", "mL);", "STIR."]


def test_exact_ignores_white_space_around_the_text_only():
    assert actions.exact(["STIR.", "STIR.", "A  B", ""], ["STIR. \n", "stir.", "A B", ""]).tolist() == [1, 0, 0, 1]


def test_similarity_is_one_minus_distance_over_the_longer_length():
    references = ["abcdefghij", "abcd", "ab", "", "", "µL"]
    predictions = ["abcdefghiX", "abcX", "abcd", "", "abc", "mL "]
    assert actions.similarity(references, predictions) == pytest.approx([0.9, 0.75, 0.5, 1.0, 0.0, 0.5])


@pytest.mark.parametrize(("wrong", "percent"), [(1, 90), (5, 75), (5, 50)])
def test_a_similarity_at_the_threshold_reaches_it(wrong, percent):
    for scale in range(1, 30):
        length = wrong * 100 // (100 - percent) * scale
        similarity = actions.similarity(
            ["a" * length], ["b" * (length * (100 - percent) // 100) + "a" * (length * percent // 100)]
        )
        assert similarity[0] >= percent / 100


def test_a_text_is_parsed_into_its_actions():
    text = " ADD water (5 mL);  STIR for 1 h; YIELD poly(a; b)  (2 g; 90%); PHASESEPARATION. "
    assert [(one.kind, one.content) for one in actions.parse(text)] == [
        ("ADD", "water (5 mL)"),
        ("STIR", "for 1 h"),
        ("YIELD", "poly(a; b) (2 g; 90%)"),
        ("PHASESEPARATION", ""),
    ]


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("", []),
        (".", []),
        ("ADD THF; THF; DRY", ["ADD", "DRY"]),  # a solvent is not an action
        ("ADD x; DRYSOLID; DRYING y", ["ADD", "DRYSOLID"]),
        ("add water; STIR", ["add", "STIR"]),
        ("NOACTION.", ["NOACTION"]),
        ("FILTER;WASH", ["FILTER;WASH"]),
    ],
)
def test_only_known_kinds_begin_an_action(text, kinds):
    assert [one.kind for one in actions.parse(text)] == kinds


def test_actions_match_as_bags_by_kind_and_as_a_whole():
    found = actions.matches(["ADD a; ADD b; STIR"], ["ADD b; ADD c; ADD d; WAIT"])
    assert found["ADD"].tolist() == [[2, 3, 2]]
    assert found["STIR"].tolist() == [[0, 0, 1]]
    assert found[actions.WHOLE].tolist() == [[1, 4, 3]]
    assert found.keys() == {*actions.KINDS, actions.WHOLE}
