"""Planted effects of single tasks on others come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from made_results import score

from bigchem.sweep.analysis import analyse as whole
from bigchem.sweep.analysis.analyse import analyse
from bigchem.sweep.analysis.transfer import Effect, effects_of
from bigchem.sweep.scores.mixtures import set_apart
from bigchem.sweep.scores.records import Results, Run, Score, tasks_of

TASKS = ("captioning", "generation", "forward")
HEADLINE = {"captioning": "bleu4", "generation": "exact", "forward": "top1", "actions": "exact"}
EFFECTS = {("captioning", "generation"): 0.05, ("forward", "captioning"): -0.04}
"""(task, task added) -> effect on the headline metric, and on minus the loss."""
PAIRS = [("captioning", "generation"), ("captioning", "forward"), ("generation", "forward")]


def runs_on(mixture: Sequence[str], seeds: int = 3, noise: float = 0.002) -> list[Score]:
    """Runs of one size, whose effects add up."""
    random = np.random.default_rng(list("+".join(mixture).encode()))
    found = []
    for seed in range(seeds):
        name = "+".join(mixture)
        run = Run(
            f"{name}-s{seed}",
            1_000_000,
            "together" if len(mixture) > 1 else "alone",
            seed,
            f"{name}-{seed}.json",
            mixture=dict.fromkeys(mixture, 1 / len(mixture)),
        )
        for task in mixture:
            effect = sum(EFFECTS.get((task, added), 0.0) for added in mixture)
            found.append(score(run, task, HEADLINE[task], 0.4 + effect + random.normal(0, noise)))
            found.append(score(run, task, "loss", 2.0 - effect + random.normal(0, noise)))
    return found


def pairwise(seeds: int = 3) -> list[Score]:
    return [s for mixture in [TASKS, *((task,) for task in TASKS), *PAIRS] for s in runs_on(mixture, seeds)]


def by_place(effects: Sequence[Effect], design: str, of: str) -> dict[tuple[str, str], Effect]:
    return {(e.gain.task, e.added): e for e in effects if (e.design, e.of) == (design, of)}


@pytest.mark.parametrize("of", ["headline", "loss"])
@pytest.mark.parametrize("design", ["pair", "leave-one-out"])
def test_planted_transfer_comes_back_with_its_sign_and_interval(design: str, of: str) -> None:
    found = by_place(effects_of(pairwise(), HEADLINE), design, of)
    assert len(found) == 6
    for place, effect in found.items():
        planted = EFFECTS.get(place, 0.0)
        estimate = effect.gain.estimate
        assert estimate.value == pytest.approx(planted, abs=0.006)
        assert effect.sign == (planted > 0) - (planted < 0)
        if planted:
            assert estimate.low is not None
            assert estimate.high is not None
            assert estimate.low < planted < estimate.high


def test_the_p_values_of_a_matrix_are_corrected_for_its_cells() -> None:
    effects = by_place(effects_of(pairwise(), HEADLINE), "pair", "headline").values()
    smallest = min(effects, key=lambda effect: effect.p or 0.0)
    assert smallest.p is not None
    assert smallest.corrected == pytest.approx(6 * smallest.p)


def test_a_group_of_tasks_left_out_has_its_own_matrix() -> None:
    """Actions have no effect, so that of both on forward is that of captioning."""
    scores = [*runs_on((*TASKS, "actions")), *runs_on(TASKS[1:])]
    effects = effects_of(scores, HEADLINE)
    found = by_place(effects, "leave-group-out", "headline")
    assert set(found) == {("generation", "actions + captioning"), ("forward", "actions + captioning")}
    assert found["forward", "actions + captioning"].gain.estimate.value == pytest.approx(-0.04, abs=0.006)
    assert found["generation", "actions + captioning"].sign == 0
    assert {effect.design for effect in effects} == {"leave-group-out"}
    assert set_apart(scores)[1] == [s for s in scores if len(s.run.mixture) == 2]


def test_a_mixture_of_a_pair_is_no_group_left_out() -> None:
    single, pair, every = runs_on(TASKS[:1]), runs_on(TASKS[:2]), runs_on((*TASKS, "actions"))
    assert {effect.design for effect in effects_of([*single, *pair, *every], HEADLINE)} == {"pair"}


def test_one_seed_decides_nothing() -> None:
    effects = effects_of(pairwise(seeds=1), HEADLINE)
    assert {(effect.p, effect.sign) for effect in effects} == {(None, 0)}


def test_mixtures_whose_other_shares_differ_are_not_compared() -> None:
    odd = [replace(s, run=replace(s.run, mixture={"captioning": 0.8, "forward": 0.2})) for s in runs_on(PAIRS[1])]
    effects = effects_of([*runs_on(TASKS), *odd], HEADLINE)
    assert effects == ()


def test_the_claim_is_about_the_mixture_of_all_tasks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "_curves", lambda cells, keys: {})
    scores, apart = set_apart(pairwise())
    assert {len(s.run.mixture) for s in scores} == {1, 3}
    assert {len(s.run.mixture) for s in apart} == {2}
    runs = tuple({id(s.run): s.run for s in scores}.values())
    found = analyse(Results(runs, tuple(scores), tasks_of(scores), apart=tuple(apart)))
    gain = next(g for g in found.gains if (g.task, g.metric) == ("captioning", "bleu4"))
    assert gain.estimate.value == pytest.approx(0.05, abs=0.006)
    assert len(found.transfer) == 24
    assert any("helps in 1, hurts in 1 and is undecided in 4 of 6 cases" in line for line in found.sentences)


def test_without_other_shared_mixtures_nothing_is_set_apart() -> None:
    scores = [*runs_on(TASKS), *runs_on(("captioning",))]
    assert set_apart(scores) == (scores, [])
