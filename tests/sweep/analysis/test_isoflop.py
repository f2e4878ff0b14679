"""Planted losses L = E + A / N^a + B / D^b at equal FLOPs C = 6 N D: the best size is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from bigchem.sweep.analysis.isoflop import IsoFlop, isoflops_of
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import Results, Run, Score, Training, scale_of, tasks_of

E, A, ALPHA, B, BETA = 1.69, 406.4, 0.34, 410.7, 0.28
"""Fitted by Hoffmann et al. 2022, approach 3."""
FLOPS = (1e18, 1e19, 1e20)


def best_size(flops: float) -> float:
    """Where the derivative of the loss along N D = C / 6 is zero."""
    return float((ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (flops / 6) ** (BETA / (ALPHA + BETA)))


def planted(
    reach: tuple[float, ...] = (0.25, 0.5, 1, 2, 4), noise: float = 0.0, seeds: int = 1, draw: int = 0
) -> Results:
    """Sizes at these multiples of the best one, for each of FLOPS."""
    random, scores = np.random.default_rng(draw), []
    for flops in FLOPS:
        for multiple in reach:
            size = round(multiple * best_size(flops))
            for seed in range(seeds):
                record = {"steps": 100 + size % 97, "global_tokens": 1000, "lr": 1e-3, "schedule": "cosine"}
                record |= {"optimizer": "adamw", "dropout": 0.0, "pretrained": False, "flops": flops}
                name, training = f"{flops:.0e}-{multiple}-s{seed}", Training(**record)
                run = Run(name, size, "together", seed, "a.json", training=training)
                loss = E + A / size**ALPHA + B / (flops / 6 / size) ** BETA + random.normal(0, noise)
                scores.append(Score(run, "captioning", "loss", scale_of("loss"), Estimate(loss)))
    runs = tuple({id(s.run): s.run for s in scores}.values())
    return Results(runs, tuple(scores), tasks_of(scores), by_axis={"flops": scores})


def only(results: Results) -> IsoFlop:
    (found,), notes = isoflops_of(results)
    assert not notes
    return found


def sizes(found: IsoFlop) -> list[Estimate | None]:
    return [None if profile.fit is None else profile.fit.size for profile in found.profiles]


def test_the_best_sizes_and_their_growth_are_those_of_the_closed_form() -> None:
    found = only(planted())
    assert [profile.flops for profile in found.profiles] == list(FLOPS)
    for flops, size in zip(FLOPS, sizes(found), strict=True):
        assert size is not None
        assert size.value == pytest.approx(best_size(flops), rel=0.05)
    assert found.exponent is not None
    assert found.exponent.value == pytest.approx(BETA / (ALPHA + BETA), abs=0.005)


def test_with_noise_the_intervals_hold_the_best_sizes_and_their_growth_about_as_often_as_they_say() -> None:
    held, growth = [], []
    for draw in range(20):
        found = only(planted(noise=0.02, seeds=3, draw=draw))
        for flops, size in zip(FLOPS, sizes(found), strict=True):
            assert size is not None
            assert size.low is not None
            assert size.high is not None
            assert size.high < 1.6 * size.low
            held.append(size.low < best_size(flops) < size.high)
        exponent = found.exponent
        assert exponent is not None
        growth.append((exponent.low or 0) < BETA / (ALPHA + BETA) < (exponent.high or 0))
    assert sum(held) >= 51  # of 60; of 300, 281 hold it
    assert sum(growth) >= 17


@pytest.mark.parametrize("reach", [(2.0, 4.0, 8.0), (0.1, 0.2, 0.4)])
def test_a_minimum_at_the_edge_is_not_determined(reach: tuple[float, ...]) -> None:
    found = only(planted(reach))
    assert [profile.fit.verdict for profile in found.profiles if profile.fit] == ["edge"] * 3
    assert found.exponent is None


def test_an_interval_that_reaches_beyond_the_sizes_is_not_given() -> None:
    found = only(planted((0.8, 1, 1.25), noise=0.02, seeds=2))
    verdicts = {profile.fit.verdict for profile in found.profiles if profile.fit}
    assert verdicts <= {"open", "edge"}
    assert all(size is None or size.low is None for size in sizes(found))


def test_runs_that_cannot_be_compared_are_left_out_and_named() -> None:
    results = planted()
    first, second, third, *_ = results.runs
    assert first.training is not None
    assert second.training is not None
    assert third.training is not None
    object.__setattr__(first.training, "flops", None)
    object.__setattr__(second.training, "steps_done", 3)
    object.__setattr__(third.training, "flops", 2e18)
    found, notes = isoflops_of(results)
    assert [len(profile.cells) for profile in found[0].profiles] == [2, 5, 5]
    assert notes == (
        "Not in the IsoFLOP view: 1e+18-0.25-s0 (training FLOPs unknown).",
        "Not in the IsoFLOP view: 1e+18-0.5-s0 (unfinished).",
        "Not in the IsoFLOP view: 1e+18-1-s0 (no other size has as many FLOPs).",
    )
    other = results.runs[-1].training
    assert other is not None
    object.__setattr__(other, "lr", 3e-3)
    _, (*_, note) = isoflops_of(results)
    assert "different learning rates of the shared models" in note


def test_flops_that_run_into_each_other_are_no_groups() -> None:
    results = planted()
    for place, run in enumerate(results.runs):
        object.__setattr__(run.training, "flops", 1e18 * 1.05**place)
    found, notes = isoflops_of(results)
    assert found == ()
    assert notes[0] == "No IsoFLOP view: no three sizes have equal training FLOPs."
    assert "FLOPs that run into those of other groups" in notes[1]


def test_an_ordinary_sweep_has_no_such_view_and_no_word_of_it() -> None:
    results = planted((1.0,))
    assert isoflops_of(Results(results.runs, results.scores, results.tasks)) == ((), ())
