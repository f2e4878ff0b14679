from __future__ import annotations

import math
from pathlib import Path

import pytest
from planted_sweep import PLANTED, SIZES, TASKS, results_of, write_result, write_sweep

from bigchem.errors import UserError
from bigchem.sweep.analysis import analyse, size_name
from bigchem.sweep.results import load


def test_planted_gains_and_slopes_come_back_positive_where_sharing_helps(tmp_path: Path) -> None:
    analysis = analyse(load([write_sweep(tmp_path)]))
    checked = 0
    for key, planted in PLANTED.items():
        if planted is None:
            continue
        _, _, gain, slope = planted
        gains = analysis.gains_of(key)
        assert [g.parameters for g in gains] == list(SIZES)
        assert gains[0].estimate.value == pytest.approx(gain)
        assert gains[-1].estimate.value == pytest.approx(gain + slope * math.log10(SIZES[-1] / SIZES[0]))
        assert analysis.trends[key].slope.value == pytest.approx(slope, abs=1e-9)
        checked += 1
    assert checked == len(PLANTED) - 1


def test_the_curve_of_each_regime_has_its_planted_rise(tmp_path: Path) -> None:
    analysis = analyse(load([write_sweep(tmp_path)]))
    assert analysis.curves["generation", "levenshtein", "alone"].factor == pytest.approx(-6.0)
    assert analysis.curves["generation", "levenshtein", "together"].factor == pytest.approx(-6.8)


def test_equal_seeds_are_paired_so_that_what_they_share_cancels(tmp_path: Path) -> None:
    for seed, shift in enumerate((-0.1, 0.0, 0.1)):
        for mixture in (("captioning",), TASKS):
            content = results_of(SIZES[0], mixture, seed)
            for metric in content["metrics"]:
                if metric["value"] is not None:
                    metric.update(value=metric["value"] + shift, low=None, high=None)
            write_result(tmp_path, content)
    (gain,) = analyse(load([tmp_path])).gains_of(("captioning", "bleu4_words"))
    assert len(gain.points) == 3
    assert gain.estimate.value == pytest.approx(0.010)
    assert gain.estimate.low == pytest.approx(0.010)


def test_unequal_seeds_are_compared_by_their_means(tmp_path: Path) -> None:
    write_sweep(tmp_path, sizes=SIZES[:1], seeds=(0, 1), alone=())
    write_result(tmp_path, results_of(SIZES[0], ("captioning",), 0))
    (gain,) = analyse(load([tmp_path])).gains_of(("captioning", "bleu4_words"))
    assert len(gain.points) == 1
    assert gain.estimate.value == pytest.approx(0.010)


def test_missing_cells_stay_missing_and_are_named(tmp_path: Path) -> None:
    write_sweep(tmp_path, alone=("captioning",))
    analysis = analyse(load([tmp_path]))
    assert {gain.task for gain in analysis.gains} == {"captioning"}
    assert not analysis.cells_of(("forward", "top1"), "alone")
    assert any("forward alone at every size" in note for note in analysis.notes)


def test_the_headline_falls_back_to_its_variant_where_it_is_not_available(tmp_path: Path) -> None:
    analysis = analyse(load([write_sweep(tmp_path)]))
    assert analysis.headline == {
        "captioning": "bleu4_words",
        "generation": "exact",
        "forward": "top1",
        "retrosynthesis": "top1",
        "actions": "bleu2",
    }
    assert any("bleu4_words stands for it" in note for note in analysis.notes)


def test_the_first_sentence_says_what_was_planted(tmp_path: Path) -> None:
    sentence = analyse(load([write_sweep(tmp_path)])).sentences[0]
    assert "helps captioning, generation and actions; hurts forward and retrosynthesis" in sentence
    assert "grows with size for captioning and generation; shrinks with size for retrosynthesis" in sentence


def test_two_sizes_give_no_fit_and_the_words_for_it(tmp_path: Path) -> None:
    analysis = analyse(load([write_sweep(tmp_path, sizes=SIZES[:2])]))
    assert not analysis.trends
    assert not analysis.curves
    assert "Fewer than 3 sizes" in analysis.sentences[0]
    assert any("Only 2 sizes" in note for note in analysis.notes)


def test_without_a_pair_nothing_is_said_about_sharing(tmp_path: Path) -> None:
    analysis = analyse(load([write_sweep(tmp_path, alone=())]))
    assert analysis.sentences == (
        "No task was trained both together and alone at one size: nothing can be said about sharing.",
    )


def test_a_gain_without_an_interval_is_not_judged(tmp_path: Path) -> None:
    for mixture in (("captioning",), TASKS):
        content = results_of(SIZES[0], mixture)
        for metric in content["metrics"]:
            metric.update(low=None, high=None)
        write_result(tmp_path, content)
    sentences = analyse(load([tmp_path])).sentences
    assert "without an interval to judge it by for captioning" in sentences[0]
    assert "helps" not in " ".join(sentences)


def test_one_seed_and_unequal_tokens_are_owned_up_to(tmp_path: Path) -> None:
    notes = analyse(load([write_sweep(tmp_path)])).notes
    assert any("One seed everywhere" in note for note in notes)
    assert any("together 1,200,000" in note and "alone 240,000" in note for note in notes)
    many = analyse(load([write_sweep(tmp_path / "more", sizes=SIZES[:1], seeds=(0, 1))])).notes
    assert not any("One seed" in note for note in many)


def test_chosen_metrics_are_drawn_and_unknown_ones_refused(tmp_path: Path) -> None:
    results = load([write_sweep(tmp_path, sizes=SIZES[:1])])
    assert analyse(results, ["generation:levenshtein"]).shown == (("generation", "levenshtein"),)
    for wrong in ("generation", "generation:bleu9", "captioning:bleu4"):
        with pytest.raises(UserError, match="--metric"):
            analyse(results, [wrong])


def test_sizes_are_named_for_reading() -> None:
    names = [size_name(n) for n in (60_000, 204_800, 1_034_240, 5_242_880, 60_506_624, 247_577_856, 1_200_000_000)]
    assert names == ["60k", "0.2M", "1M", "5.2M", "61M", "248M", "1.2B"]
