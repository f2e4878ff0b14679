from __future__ import annotations

from dataclasses import replace

from made_results import gain_of, results

from bigchem.sweep.analysis.diverged import diverged
from bigchem.sweep.scores.estimate import Estimate
from bigchem.sweep.scores.records import Results

LOSSES = gain_of(0.1, 0.1, 0.1, 0.1, alone=(2.0, 1.5, 1.2, 1.0), lower=True)


def sweep(seeds: int = 3, noise: float = 0.01) -> Results:
    return results({("captioning", "loss"): LOSSES}, seeds=seeds, noise=noise)


def with_loss(made: Results, name: str, loss: float) -> Results:
    return replace(
        made, scores=tuple(replace(s, estimate=Estimate(loss)) if s.run.name == name else s for s in made.scores)
    )


def test_only_a_run_far_worse_than_its_seeds_and_than_smaller_models_diverged() -> None:
    assert diverged(sweep().scores) == []
    (found,) = diverged(with_loss(sweep(), "16000000-together-s1", 5.0).scores)
    assert (found.run.name, found.metric, found.value) == ("16000000-together-s1", "loss", 5.0)
    assert diverged(with_loss(sweep(), "16000000-together-s1", 1.3).scores) == []  # bad luck: the smallest are worse
    assert diverged(with_loss(sweep(), "16000000-together-s1", 0.1).scores) == []  # better


def test_two_seeds_do_not_tell_which_of_them_is_odd() -> None:
    assert diverged(with_loss(sweep(seeds=2), "16000000-together-s1", 5.0).scores) == []


def test_seeds_that_all_differ_widely_did_not_diverge() -> None:
    made = sweep(noise=0.3)
    worst = max(s.estimate.value for s in made.scores if s.run.parameters == 200_000 and s.estimate is not None)
    assert diverged(with_loss(made, "200000-together-s0", worst + 0.5).scores) == []


def test_where_seeds_are_equal_a_slightly_worse_one_did_not_diverge() -> None:
    made = results({("captioning", "loss"): gain_of(0, 0, 0, 0, alone=(1.0, 1.0, 1.0, 1.0), lower=True)}, seeds=3)
    assert diverged(with_loss(made, "16000000-together-s1", 1.001).scores) == []
