"""The first sentences of a report, for planted sweeps that are easily misread."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from made_results import CROSS, SIZES, Planted, gain_of, results

from bigchem.sweep.analysis import analyse as whole
from bigchem.sweep.analysis.analyse import Analysis, analyse
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import Results

KEYS = [(task, metric) for task, metrics in CROSS.items() for metric in metrics]
GROWING, SHRINKING = (0.01, 0.03, 0.05, 0.07), (0.07, 0.05, 0.03, 0.01)
DIVERGED = "16000000-together-s1"


@pytest.fixture(autouse=True)
def _without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The curves of a metric take a second, and no sentence here depends on them."""
    monkeypatch.setattr(whole, "_curves", lambda cells, keys: {})


def planted(gains: dict[tuple[str, str], tuple[float, ...]]) -> dict[tuple[str, str], Planted]:
    """Gains by metric, whatever its direction."""
    alone = {"levenshtein": (2.0,) * 4}
    lower = ("loss", "levenshtein")
    return {
        key: gain_of(*found, alone=alone.get(key[1], (0.4,) * 4), lower=key[1] in lower) for key, found in gains.items()
    }


def verdicts(analysis: Analysis) -> set[str]:
    return {trend.verdict for trend in analysis.trends.values()}


def test_two_growing_headlines_do_not_speak_for_twelve_metrics_that_fall() -> None:
    headlines = (("captioning", "bleu4"), ("generation", "exact"))
    found = analyse(results(planted({key: GROWING if key in headlines else SHRINKING for key in KEYS})))
    assert "metrics contradict each other" in found.claim
    assert "rises with model size in 2 and falls in 12" in found.claim
    assert "the gain grows in 2 (captioning BLEU-4 and generation exact match)" in found.claim
    assert "the gain in the loss falls." in found.claim
    assert "helps more" not in found.claim


def test_a_growing_gain_of_all_metrics_is_called_so() -> None:
    found = analyse(results(planted(dict.fromkeys(KEYS, GROWING))))
    assert "For cross-domain tasks (captioning and generation), sharing helps more as models grow: of 14 metrics, " in (
        found.claim
    )
    assert "Holm's correction over 14 tests; without it 14 rise and 0 fall" in found.claim
    assert "Nothing can be said about single-domain tasks." in found.claim


def test_a_cost_that_shrinks_is_not_a_gain_that_grows() -> None:
    cost = (-0.20, -0.15, -0.10, -0.05)
    found = analyse(results(planted({("captioning", "bleu4"): cost, ("generation", "exact"): cost})))
    assert "the cost of sharing shrinks with model size in most metrics" in found.claim
    assert "grow" not in found.claim
    assert verdicts(found) == {"cost shrinks"}


def test_a_metric_that_is_zero_everywhere_is_neither_counted_nor_pooled() -> None:
    nothing = gain_of(0, 0, 0, 0, alone=(0.0,) * 4)
    made = results({**planted({("captioning", "bleu4"): GROWING}), ("generation", "exact"): nothing}, noise=0)
    found = analyse(made)
    assert ("generation", "exact") not in found.trends
    assert "of 1 metric" in found.claim
    assert any("generation exact match (0)" in note for note in found.notes)
    assert [pool.tasks for pool in found.pools] == [("captioning",)]


@pytest.mark.parametrize("gains", [(0.0, 0.08, 0.10, 0.02), (0.0, 0.05, 0.10, 0.06)])
def test_a_peak_in_the_middle_is_no_growth(gains: tuple[float, ...]) -> None:
    found = analyse(results(planted({("captioning", "bleu4"): gains})))
    assert verdicts(found) == {"peaks"}
    assert "no growth of the gain" in found.claim
    assert "highest or lowest at a middle size in 1" in found.claim


def test_a_peak_counts_after_correction_unless_it_casts_doubt_on_a_decided_slope() -> None:
    found = analyse(results(planted({("captioning", "bleu4"): (0.0, 0.08, 0.10, 0.02)})))
    (peak,) = found.trends.values()
    by_chance = replace(peak, corrected=1.0, lack_of_fit=0.03, corrected_fit=0.4)
    assert (by_chance.verdict, replace(by_chance, p=0.5).uncorrected) == ("undecided", "peaks")
    assert replace(by_chance, corrected=0.01).verdict == "peaks"


def test_the_test_for_peaks_is_corrected_over_all_metrics() -> None:
    found = analyse(results(planted(dict.fromkeys(KEYS, (0.0, 0.08, 0.10, 0.02)))))
    fits = [trend.lack_of_fit for trend in found.trends.values() if trend.lack_of_fit is not None]
    smallest = min(found.trends.values(), key=lambda trend: trend.lack_of_fit or 0.0)
    assert smallest.corrected_fit == pytest.approx(min(1.0, len(fits) * min(fits)))


def test_growth_that_slows_down_is_still_growth() -> None:
    found = analyse(results(planted({("captioning", "bleu4"): (0.0, 0.06, 0.08, 0.09)})))
    (trend,) = found.trends.values()
    assert trend.lack_of_fit is not None
    assert trend.lack_of_fit < 0.05
    assert trend.verdict == "gain grows"


def test_tasks_that_go_different_ways_are_not_averaged_into_one() -> None:
    gains = {key: GROWING if key[0] == "captioning" else SHRINKING for key in KEYS}
    found = analyse(results(planted(gains)))
    assert "rises with model size in 6 and falls in 8" in found.claim
    assert (
        "rising: captioning BLEU-2, captioning BLEU-4, captioning ROUGE-1, captioning ROUGE-2 and 2 more" in found.claim
    )


def test_a_ceiling_under_a_constant_gain_in_log_odds_is_no_shrinking_gain() -> None:
    base = (0.60, 0.85, 0.95, 0.985)

    def near_ceiling(place: int) -> tuple[float, float]:
        odds = base[place] / (1 - base[place]) * math.exp(0.5)
        return odds / (1 + odds), base[place]

    found = analyse(results({("captioning", "bleu4"): near_ceiling}, n=3000))
    (trend,) = found.trends.values()
    assert trend.slope.estimate.sign == -1
    assert trend.verdict == "one scale"
    assert "falls" not in found.claim.split("(Holm")[0]


def diverged_sweep() -> Results:
    """Growth in all metrics; one of 24 runs has lost everything."""
    made = results(planted({key: GROWING for key in KEYS if key[1] != "levenshtein"}))
    broken = {"loss": 2.5}
    scores = [
        replace(s, estimate=Estimate(broken.get(s.metric, 0.01))) if s.run.name == DIVERGED else s for s in made.scores
    ]
    return replace(made, scores=tuple(scores))


def test_one_diverged_run_of_24_does_not_hide_the_growth_and_is_named_first() -> None:
    found = analyse(diverged_sweep())
    assert found.claim.startswith(f"Without {DIVERGED} (16M, seed 1: ")
    assert "sharing helps more as models grow" in found.claim
    assert len(found.results.runs) == 23


def test_a_diverged_run_that_is_kept_is_named_too() -> None:
    found = analyse(diverged_sweep(), keep_diverged=True)
    assert found.claim.startswith(f"Including {DIVERGED} (16M")
    assert "no growth" in found.claim
    assert len(found.results.runs) == 24


def test_two_sizes_give_a_difference_of_differences() -> None:
    found = analyse(results(planted({("captioning", "bleu4"): (0.01, 0.05)}), sizes=SIZES[:2]))
    (trend,) = found.trends.values()
    assert trend.slope.value == pytest.approx(0.04 / math.log10(5), abs=0.005)
    assert "sharing helps more as models grow (from two sizes)" in found.claim


def test_two_sizes_of_one_seed_decide_nothing() -> None:
    found = analyse(results(planted({("captioning", "bleu4"): (0.01, 0.05)}), sizes=SIZES[:2], seeds=1))
    assert verdicts(found) == {"undecided"}
    assert "The training noise is unknown" in found.claim


def test_metrics_chosen_by_hand_are_named_before_the_sentence() -> None:
    made = results(planted({("captioning", "bleu4"): GROWING, ("captioning", "bleu2"): SHRINKING}))
    found = analyse(made, ["captioning:bleu4"])
    assert found.claim.startswith("Drawn and pooled are metrics chosen by hand (captioning BLEU-4). ")
    assert "of 2 metrics" in found.claim


def test_what_the_results_are_doubtful_for_stands_before_the_claim() -> None:
    made = replace(results(planted({("captioning", "bleu4"): GROWING})), caveats=("Budgets differ.",))
    assert analyse(made).claim.startswith("Budgets differ. For cross-domain")


def test_noise_alone_shows_no_growth() -> None:
    found = analyse(results(planted(dict.fromkeys(KEYS, (0.0,) * 4)), noise=0.02))
    assert verdicts(found) == {"undecided"}
    assert "no growth of the gain of sharing with model size is shown" in found.claim
