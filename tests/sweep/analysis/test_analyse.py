from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from planted_sweep import PLANTED, SIZES, TASKS, results_of, write_result, write_sweep

from bigchem.base.errors import UserError
from bigchem.sweep.analysis.analyse import analyse
from bigchem.sweep.analysis.conclusions import signed
from bigchem.sweep.report.tables import beyond_rows
from bigchem.sweep.scores.aggregate import size_name
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import REGIMES
from bigchem.sweep.scores.results import load


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
    slopes = {r: analysis.curves["generation", "levenshtein", r].parameters["slope"].value for r in REGIMES}
    assert slopes == pytest.approx({"alone": -6.0, "together": -6.8})


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
    assert any("BLEU-4 (words) is used instead" in note for note in analysis.notes)


def test_the_first_sentence_says_what_was_planted(tmp_path: Path) -> None:
    sentence = analyse(load([write_sweep(tmp_path)])).sentences[0]
    assert "helps captioning, generation and actions; hurts forward and retrosynthesis" in sentence
    assert "Judged alone, the gain grows with size for captioning; " in sentence
    assert "depends on the scale for generation and retrosynthesis" in sentence  # in log-odds their gains are level


def test_a_headline_that_is_zero_everywhere_gives_way_to_the_loss_and_it_is_said(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    for file in tmp_path.rglob("results.json"):
        content = json.loads(file.read_text())
        for metric in content["metrics"]:
            if (metric["task"], metric["metric"]) == ("generation", "exact"):
                metric.update(value=0.0, low=0.0, high=0.01)
        file.write_text(json.dumps(content))
    first, *each = analyse(load([tmp_path])).sentences
    assert "(judged by loss, as the headline metric is the same in every run: generation)" in first
    (generation,) = (sentence for sentence in each if sentence.startswith("generation "))
    assert " loss (nats per token)" in generation
    assert "exact match" not in generation
    (captioning,) = (sentence for sentence in each if sentence.startswith("captioning "))
    assert " BLEU-4 (words), +" in captioning
    assert " loss (nats per token); " in captioning


def test_two_sizes_give_no_fit_and_the_words_for_it(tmp_path: Path) -> None:
    analysis = analyse(load([write_sweep(tmp_path, sizes=SIZES[:2])]))
    assert not analysis.curves
    assert {trend.verdict for trend in analysis.trends.values()} == {"undecided"}
    assert "too few sizes or seeds" in analysis.sentences[0]
    assert any("Only 2 sizes" in note for note in analysis.notes)


def test_without_a_pair_nothing_is_said_about_sharing(tmp_path: Path) -> None:
    analysis = analyse(load([write_sweep(tmp_path, alone=())]))
    assert analysis.claim.startswith("Nothing can be said about sharing")
    assert analysis.sentences == ()


def test_a_gain_without_an_interval_is_not_judged(tmp_path: Path) -> None:
    for mixture in (("captioning",), TASKS):
        content = results_of(SIZES[0], mixture)
        for metric in content["metrics"]:
            metric.update(low=None, high=None)
        write_result(tmp_path, content)
    sentences = analyse(load([tmp_path])).sentences
    assert "cannot be judged for captioning" in sentences[0]
    assert "helps" not in " ".join(sentences)


def test_one_seed_and_unequal_tokens_are_owned_up_to(tmp_path: Path) -> None:
    notes = analyse(load([write_sweep(tmp_path)])).notes
    assert any("One seed everywhere" in note for note in notes)
    assert any("the shared models 1,200,000 tokens, captioning alone 240,000" in note for note in notes)
    more = write_sweep(tmp_path / "more", sizes=SIZES[:1], seeds=(0, 1))
    assert not any("One seed" in note for note in analyse(load([more])).notes)
    write_sweep(more, sizes=SIZES[1:2])
    write_result(more, results_of(SIZES[2], TASKS))
    write_result(more, results_of(SIZES[2], ("actions",)))
    write_result(more, results_of(SIZES[2], ("actions",), seed=1))
    start = "One seed at 1M and 5.2M (captioning together; generation together; forward together; "
    (note,) = (note for note in analyse(load([more])).notes if note.startswith("One seed"))
    assert note.startswith(start)
    assert note.endswith("actions together): intervals there include no training noise.")


def test_a_metric_that_one_seed_alone_gave_is_named(tmp_path: Path) -> None:
    write_sweep(tmp_path, sizes=SIZES[:1], seeds=(0, 1))
    content = results_of(SIZES[0], ("generation",), seed=1)
    for metric in content["metrics"]:
        if metric["metric"] == "levenshtein":
            metric.update(value=None, low=None, high=None, note="no predictions")
    write_result(tmp_path, content)
    (note,) = (note for note in analyse(load([tmp_path])).notes if note.startswith("One seed"))
    assert note == "One seed at 0.2M (generation alone: edit distance): intervals there include no training noise."


def test_chosen_metrics_are_drawn_and_unknown_ones_refused(tmp_path: Path) -> None:
    results = load([write_sweep(tmp_path, sizes=SIZES[:1])])
    assert analyse(results, ["generation:levenshtein"]).shown == (("generation", "levenshtein"),)
    for wrong in ("generation", "generation:bleu9", "captioning:bleu4"):
        with pytest.raises(UserError, match="--metric"):
            analyse(results, [wrong])


def test_sizes_are_named_for_reading() -> None:
    names = [
        size_name(n) for n in (60_000, 204_800, 1_034_240, 5_242_880, 60_506_624, 247_577_856, 1_200_000_000, 2e12)
    ]
    assert names == ["60k", "0.2M", "1M", "5.2M", "61M", "248M", "1.2B", "2T"]


def test_the_claim_says_of_each_kind_of_task_what_was_planted(tmp_path: Path) -> None:
    analysis = analyse(load([write_sweep(tmp_path)]))
    # Slopes of the gain: captioning 0.03, generation 0.02; forward 0, retrosynthesis -0.025, actions 0.005.
    slopes = {(p.kind, p.of): p.slope.value for p in analysis.pools if p.slope is not None}
    assert slopes["cross-domain", "headline"] == pytest.approx(0.025)
    assert slopes["single-domain", "headline"] == pytest.approx(-0.02 / 3)
    assert slopes["cross-domain", "loss"] == pytest.approx(0.025)
    cross, single = analysis.claim.split("For single-domain tasks")
    assert cross.startswith("For cross-domain tasks (captioning and generation), sharing helps more as models grow in ")
    assert "of 5 metrics, " in cross
    assert "(forward, retrosynthesis and actions), no growth of the gain of sharing with model size is shown" in single
    assert single.endswith("(Holm's correction over 11 tests; without it 1 rise and 0 fall.)")


def test_with_two_sizes_of_one_seed_the_claim_is_left_open(tmp_path: Path) -> None:
    claim = analyse(load([write_sweep(tmp_path, sizes=SIZES[:2])])).claim
    assert "The training noise is unknown: train several seeds, or three sizes." in claim


def test_curves_are_read_a_decade_beyond_the_sizes_and_no_further_unless_asked_twice(tmp_path: Path) -> None:
    results = load([write_sweep(tmp_path)])
    analysis = analyse(results, extrapolate=[10.0 * SIZES[-1]])
    assert analysis.beyond == (10.0 * SIZES[-1],)
    for size in (10.1 * SIZES[-1], SIZES[0] / 10.1):
        with pytest.raises(UserError, match="more than a decade beyond"):
            analyse(results, extrapolate=[size])
        assert analyse(results, extrapolate=[size], beyond_a_decade=True).beyond == (size,)
    for wrong in (0.0, math.inf, math.nan):
        with pytest.raises(UserError, match="not a number of parameters"):
            analyse(results, extrapolate=[wrong], beyond_a_decade=True)


def test_a_curve_read_where_its_metric_cannot_be_is_named(tmp_path: Path) -> None:
    results = load([write_sweep(tmp_path)])

    def named(metric: str, size: float) -> list[str]:
        found = analyse(results, [metric], extrapolate=[size], beyond_a_decade=True)
        return [note for note in found.notes if "which is impossible" in note]

    assert named("actions:loss", 1e8) == [] == named("forward:top1", 1e8)
    below = named("actions:loss", 1e12)
    assert [note.split(" is ")[0] for note in below] == [f"actions loss {r} read at 1T" for r in ("together", "alone")]
    assert all("linear shape does not hold" in note for note in below)
    assert len(named("forward:top1", 1e12)) == 2  # above 1


def test_a_curve_is_read_by_its_own_sizes_not_by_those_of_the_others(tmp_path: Path) -> None:
    for size in (*SIZES, 10**9):
        for mixture in (("captioning", "forward"), ("captioning",)) if size in SIZES else (("captioning", "forward"),):
            content = results_of(size, mixture)
            content["metrics"] = [metric for metric in content["metrics"] if metric["metric"] == "loss"]
            write_result(tmp_path, content)
    results = load([tmp_path])
    with pytest.raises(UserError, match=r"beyond the measured sizes of captioning loss alone, 0\.2M to 5.2M"):
        analyse(results, extrapolate=[1e9])
    rows = beyond_rows(analyse(results, ["captioning:loss"], extrapolate=[1e9], beyond_a_decade=True))
    assert {row["regime"]: row["measured"] for row in rows} == {"together": True, "alone": False}


def test_numbers_are_told_to_two_digits_of_their_interval() -> None:
    assert signed(Estimate(0.0264, 0.0232, 0.0296)) == "+0.0264 [+0.0232, +0.0296]"
    assert signed(Estimate(-1.234, -1.5, -1.0)) == "−1.23 [−1.50, −1.00]"
    assert signed(Estimate(0.25)) == "+0.25 (no interval)"
    assert signed(Estimate(0.25, 0.25, 0.25)) == "+0.2500 [+0.2500, +0.2500]"
