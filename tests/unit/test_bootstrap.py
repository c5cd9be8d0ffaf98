"""The interval covers what it says, pairing removes what users share, and a seed fixes the result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recbatch.evaluation.bootstrap import Interval, mean_interval, mean_intervals, paired_difference

# No deadline: on a busy machine the time of one example says nothing.
quick = settings(max_examples=50, deadline=None)


def rng(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_95_of_100_intervals_cover_the_true_mean() -> None:
    draw = rng(1)
    # Exponential, true mean 1: skewed, as metrics of users are.
    intervals = [mean_interval(draw.exponential(size=150), 300, draw) for _ in range(400)]
    covering = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])

    # Four standard errors of a share of 400 are 0.044.
    assert 0.95 - 0.044 <= covering <= 0.95 + 0.044


def test_width_is_that_of_the_normal_approximation_for_many_users() -> None:
    values = rng(2).normal(3.0, 2.0, size=2_000)
    interval = mean_interval(values, 4_000, rng())
    half = 1.96 * values.std() / np.sqrt(values.size)

    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_of_two_users_the_interval_spans_both_as_each_is_drawn_twice_in_a_quarter_of_the_samples() -> None:
    assert mean_interval(np.array([0.0, 1.0]), 500, rng()) == Interval(0.5, 0.0, 1.0)


def test_the_same_seed_gives_the_same_interval_and_another_one_does_not() -> None:
    values = rng(3).random(200)

    assert mean_interval(values, 200, rng(8)) == mean_interval(values, 200, rng(8))
    assert mean_interval(values, 200, rng(8)) != mean_interval(values, 200, rng(9))


def test_metrics_that_are_measured_together_have_the_intervals_that_each_has_alone() -> None:
    values = {name: rng(seed).random(301) for name, seed in (("ndcg", 4), ("recall", 5), ("map", 6))}
    together = mean_intervals(values, 57, rng())

    assert together.keys() == values.keys()
    for name, interval in together.items():
        alone = mean_interval(values[name], 57, rng())
        assert (interval.mean, interval.low, interval.high) == pytest.approx((alone.mean, alone.low, alone.high))


def test_an_interval_is_the_quantiles_of_the_means_of_the_users_that_were_drawn() -> None:
    values = rng(4).random(40)
    means = [values[drawn].mean() for drawn in rng().integers(0, 40, size=(200, 40))]
    interval = mean_interval(values, 200, rng())

    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


@quick
@given(st.floats(-1e3, 1e3), st.integers(1, 50))
def test_equal_values_leave_no_doubt(value: float, users: int) -> None:
    interval = mean_interval(np.full(users, value), 20, rng())

    assert (interval.mean, interval.low, interval.high) == pytest.approx((value, value, value))


@quick
@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(0.0, 1.0)))
def test_bounds_are_ordered_and_within_the_values(values: np.ndarray) -> None:
    interval = mean_interval(values, 50, rng())

    assert values.min() - 1e-12 <= interval.low <= interval.high <= values.max() + 1e-12


def test_pairing_finds_a_small_gain_that_the_variance_between_users_hides() -> None:
    baseline = rng(6).random(500)
    values = baseline + rng(7).normal(0.01, 0.02, size=500)
    difference = paired_difference(values, baseline, 1_000, rng())
    apart = mean_interval(values, 1_000, rng()), mean_interval(baseline, 1_000, rng())

    assert difference.low > 0.0
    assert difference.mean == pytest.approx(values.mean() - baseline.mean())
    assert apart[0].low < apart[1].high


def test_swapping_the_two_mirrors_the_difference() -> None:
    values, baseline = rng(8).random(100), rng(9).random(100)
    forward = paired_difference(values, baseline, 500, rng())
    backward = paired_difference(baseline, values, 500, rng())

    assert (forward.mean, forward.low, forward.high) == pytest.approx((-backward.mean, -backward.high, -backward.low))


def test_no_difference_is_found_between_equals() -> None:
    values = rng(10).random(100)

    assert paired_difference(values, values.copy(), 100, rng()) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([]), "at least one user"),
        (np.ones((2, 2)), r"its shape is \(2, 2\)"),
        (np.array([0.5, np.nan]), "row 1 holds nan"),
        (np.array([np.inf]), "row 0 holds inf"),
    ],
)
def test_values_that_have_no_mean_are_an_error(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_interval(values, 10, rng())


def test_a_pair_of_different_users_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) against \(1,\)"):
        paired_difference(np.ones(3), np.ones(1), 10, rng())


def test_a_baseline_that_is_not_finite_is_named() -> None:
    with pytest.raises(ValueError, match="baseline must be finite; row 1 holds nan"):
        paired_difference(np.ones(2), np.array([0.0, np.nan]), 10, rng())


def test_metrics_of_different_users_are_an_error() -> None:
    with pytest.raises(ValueError, match="same shape"):
        mean_intervals({"ndcg": np.ones(3), "recall": np.ones(4)}, 10, rng())


def test_no_samples_are_an_error() -> None:
    with pytest.raises(ValueError, match="samples must be 1 or more; got 0"):
        mean_interval(np.ones(3), 0, rng())
