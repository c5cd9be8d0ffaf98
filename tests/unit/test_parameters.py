"""Normalisation on arrays: what it does to a value, what undoes it, and how far parameters have moved."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from recbatch.config.sections import Normalization
from recbatch.transforms.parameters import Parameters, denormalise, drift, normalise, signed_log

NAN = math.nan
finite = st.floats(-1e6, 1e6)
positive = st.floats(1e-3, 1e6)
METHODS = get_args(Normalization)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (Parameters("zscore", 2.0, 4.0), [0.5, -1.5, 0.0]),
        (Parameters("zscore", 2.0, 4.0, fill=6.0), [0.5, -1.5, 1.0]),
        (Parameters("log1p", 1.0, 2.0), [(math.log(5) - 1) / 2, (-math.log(5) - 1) / 2, 0.0]),
        (Parameters("log1p", 0.0, 1.0, fill=math.e - 1), [math.log(5), -math.log(5), 1.0]),
    ],
    ids=str,
)
def test_values_and_missing_ones(parameters: Parameters, expected: list[float]) -> None:
    found = normalise(np.array([4.0, -4.0, NAN]), parameters)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_missing_value_counts_as_its_own_fill_before_the_common_one() -> None:
    parameters = Parameters("minmax", 1.0, 2.0, fill=2.0)
    values, fills = np.array([[5.0, NAN], [NAN, NAN]]), np.array([[9.0, 3.0], [NAN, 1.0]])
    assert normalise(values, parameters, fills).tolist() == [[2.0, 1.0], [0.5, 0.0]]


@given(
    values=arrays.arrays(np.float64, arrays.array_shapes(max_dims=2), elements=finite),
    method=st.sampled_from(METHODS),
    center=finite,
    scale=positive,
)
def test_denormalising_undoes_it(values: np.ndarray, method: Normalization, center: float, scale: float) -> None:
    if method == "log1p":
        center, scale = center / 1e5, 1 + scale / 1e5
    parameters = Parameters(method, center, scale)
    found = denormalise(normalise(values, parameters), parameters)
    # float32 keeps 24 bits of the normalised value: what that loses in the unit of the column, or of its logarithm.
    lost = 2.0**-22 * (np.abs(values) + abs(center) + 1e-30)
    if method == "log1p":
        lost = (1 + np.abs(values)) * np.expm1(2.0**-22 * (np.abs(signed_log(values)) + abs(center) + 1e-12))
    assert found.shape == values.shape
    assert (np.abs(found - values) <= lost + 1e-9).all()


@given(left=finite, right=finite)
def test_the_signed_logarithm_is_odd_and_increasing(left: float, right: float) -> None:
    low, high = signed_log(np.array([left, right]))
    assert (low < high) <= (left < right)
    assert (left < right) <= (low <= high)
    assert signed_log(np.array([-left]))[0] == -low
    assert signed_log(np.array([abs(left)]))[0] == np.log1p(abs(left))


def test_drift_is_measured_in_the_scale_of_the_last_run() -> None:
    previous = {
        "events.price": Parameters("zscore", 10.0, 2.0),
        "events.quantity": Parameters("zscore", 1.0, 1.0),
        "items.size": Parameters("none", 0.0, 1.0),
        "items.gone": Parameters("zscore", 0.0, 1.0),
    }
    current = {
        "events.price": Parameters("zscore", 13.0, 1.0),
        "events.quantity": Parameters("robust", 1.0, 1.0),
        "items.size": Parameters("none", 0.0, 1.0),
        "items.new": Parameters("zscore", 5.0, 1.0),
    }
    assert drift(current, previous) == {"drift:events.price": 1.5, "drift_scale:events.price": 0.5}
    assert drift(current, {}) == {}
    assert drift(previous, previous)["drift:items.gone"] == 0.0
