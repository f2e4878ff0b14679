from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigchem.sweep.analysis.fits.curves import Curve, Observation, curve, fit
from bigchem.sweep.analysis.fits.shapes import Shape
from bigchem.sweep.scores.estimate import Estimate

SIZES = [2e5, 1e6, 5e6, 2.5e7, 1e8]
Planted = tuple[Shape, Callable[[float], float], dict[str, float]]
PLANTED: list[Planted] = [
    ("linear", lambda n: 0.2 + 0.1 * math.log10(n / 1e6), {"slope": 0.1}),
    ("power", lambda n: 1.2 + 0.8 * (n / 1e6) ** -0.3, {"floor": 1.2, "exponent": 0.3}),
    ("power", lambda n: 0.8 - 0.3 * (n / 1e6) ** -0.4, {"floor": 0.8, "exponent": 0.4}),
    ("saturating", lambda n: 0.7 / (1 + (n / 3e6) ** -0.9), {"top": 0.7, "half": 3e6, "steepness": 0.9}),
    ("saturating", lambda n: 30 / (1 + (n / 3e6) ** 0.8), {"top": 30, "half": 3e6, "steepness": -0.8}),
]


def observations(planted: Callable[[float], float], sizes: list[float] = SIZES) -> list[Observation]:
    return [Observation(n, (Estimate(planted(n)),)) for n in sizes]


def noisy(
    planted: Callable[[float], float], seeds: int, examples: float, random: np.random.Generator
) -> list[Observation]:
    """Seed noise is 0.01; the noise of the test examples is shared by a size's seeds and stated in their intervals."""
    found = []
    for n in np.geomspace(2e5, 1e8, 6):
        values = planted(n) + random.normal(0, examples) + random.normal(0, 0.01, size=seeds)
        half = 1.96 * examples
        found.append(Observation(n, tuple(Estimate(v, v - half, v + half) if half else Estimate(v) for v in values)))
    return found


def covered(planted: Planted, seeds: int, examples: float, draws: int) -> dict[str, float]:
    """How often each parameter's interval, and the band at 5 M, contain the truth."""
    shape, function, truth = planted
    random = np.random.default_rng(1)
    hits = dict.fromkeys([*truth, "band"], 0)
    for draw in range(draws):
        found = fit(shape, noisy(function, seeds, examples, random), seed=draw)
        at = {
            **{name: (found.parameters[name], value) for name, value in truth.items()},
            "band": (found.at(5e6), function(5e6)),
        }
        for name, (estimate, value) in at.items():
            assert estimate.low is not None
            assert estimate.high is not None
            hits[name] += estimate.low <= value <= estimate.high
    return {name: count / draws for name, count in hits.items()}


@pytest.mark.parametrize(("shape", "function", "truth"), PLANTED)
def test_a_planted_shape_is_chosen_and_its_parameters_come_back(
    shape: Shape, function: Callable[[float], float], truth: dict[str, float]
) -> None:
    found = curve(observations(function))
    assert found is not None
    assert found.shape == shape
    assert set(found.loo) == {"linear", "power", "saturating"}
    assert found.loo[shape] == min(found.loo.values())
    for name, value in truth.items():
        assert found.parameters[name].value == pytest.approx(value, rel=1e-3)
    assert found([1e6, 7e7]) == pytest.approx([function(1e6), function(7e7)], rel=1e-4)


def test_the_formula_is_the_curve() -> None:
    for _, function, _ in PLANTED:
        found = curve(observations(function))
        assert found is not None
        value = eval(found.formula.replace("^", "**"), {"log10": math.log10, "N": 4e6})  # noqa: S307
        assert value == pytest.approx(float(found(4e6)), rel=5e-3), found.formula


@pytest.mark.parametrize("sizes", [0, 1, 2])
def test_fewer_than_three_sizes_give_no_fit(sizes: int) -> None:
    assert curve(observations(lambda n: n, SIZES[:sizes])) is None


def test_three_sizes_are_never_given_a_three_parameter_curve() -> None:
    found = curve(observations(PLANTED[1][1], SIZES[:3]))
    assert found is not None
    assert set(found.loo) == {"linear"}


def test_one_seed_that_went_wrong_does_not_bend_the_curve() -> None:
    def with_outlier(last: float) -> Curve:
        found = [Observation(n, tuple(Estimate(0.1 * math.log10(n) + d) for d in (-0.003, 0.0, 0.003))) for n in SIZES]
        found[-1] = Observation(SIZES[-1], (*found[-1].seeds[:2], Estimate(last)))
        return fit("linear", found)

    slope = with_outlier(0.0).parameters["slope"].value
    values = [np.mean([0.1 * math.log10(n)] * 3) for n in SIZES[:-1]] + [(2 * 0.1 * math.log10(SIZES[-1])) / 3]
    plain = np.polyfit(np.log10(SIZES), values, 1)[0]
    assert abs(slope - 0.1) < 0.6 * abs(plain - 0.1)


def test_without_any_noise_to_go_by_there_is_no_interval() -> None:
    found = fit("power", observations(PLANTED[1][1], SIZES[:3]))
    assert found.parameters["exponent"].low is None
    assert found.at(1e6).low is None
    assert np.isnan(found.band([1e6])).all()


def test_the_band_widens_beyond_the_sizes() -> None:
    found = fit("power", noisy(PLANTED[1][1], 3, 0.01, np.random.default_rng(0)))
    low, high = found.band([5e6, 1e10])
    assert high[1] - low[1] > 1.5 * (high[0] - low[0])


def test_sizes_count_once_however_many_seeds_they_have() -> None:
    few = [Observation(n, (Estimate(0.1 * math.log10(n) + (0.05 if n == 5e6 else 0.0)),)) for n in SIZES]
    many = [Observation(o.parameters, o.seeds * (9 if o.parameters == 5e6 else 1)) for o in few]
    heights = [float(fit("linear", seen)(5e6)) for seen in (few, many)]
    assert heights[0] == pytest.approx(heights[1], abs=0.01)


@settings(max_examples=15)
@given(shift=st.floats(-5, 5), factor=st.floats(0.1, 50), unit=st.floats(0.01, 1000))
def test_units_of_value_and_size_do_not_matter(shift: float, factor: float, unit: float) -> None:
    seen = observations(PLANTED[1][1])
    plain = fit("power", seen)
    other = fit(
        "power", [Observation(o.parameters * unit, (Estimate(shift + factor * o.seeds[0].value),)) for o in seen]
    )
    assert other(3e6 * unit) == pytest.approx(shift + factor * plain(3e6), rel=1e-3, abs=1e-3)
    assert other.parameters["exponent"].value == pytest.approx(plain.parameters["exponent"].value, rel=1e-2)


@pytest.mark.parametrize(
    "planted", [PLANTED[0], pytest.param(PLANTED[1], marks=pytest.mark.thorough)], ids=["linear", "power"]
)
def test_intervals_cover_the_planted_parameters_about_as_often_as_they_say(planted: Planted) -> None:
    for name, rate in covered(planted, 3, 0.01, 60).items():
        assert rate >= 0.88, name


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("examples", [0.0, 0.01])
@pytest.mark.parametrize("planted", [PLANTED[0], PLANTED[1], PLANTED[3]], ids=["linear", "power", "saturating"])
def test_95_percent_intervals_cover_the_planted_parameters(planted: Planted, examples: float, seeds: int) -> None:
    """300 sweeps: two standard errors of a true 95 % are 2.5 points. Covering more errs on the safe side."""
    for name, rate in covered(planted, seeds, examples, 300).items():
        print(f"{planted[0]} {name}: {rate:.3f}")
        assert rate >= 0.92, name
