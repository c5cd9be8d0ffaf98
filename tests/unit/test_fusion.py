"""The terms of the score that depend on the item alone, and normalisation carried between two fits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recbatch.model.fusion import BARE, Fusion, Popularity
from recbatch.transforms.normalization import rescaling
from recbatch.transforms.parameters import Parameters


def test_trend_and_bias_follow_their_formula() -> None:
    popularity = Popularity(ever=torch.tensor([50.0, 0.0]), recent=torch.tensor([8.0, 0.0]))
    assert popularity.trend().tolist() == pytest.approx([math.log(8 + 0.02 * 50 + 0.1), math.log(0.1)])
    fusion = Fusion(lam=1.0, eps=1.0, behaviours=5, decay=1.0, network_bias=0.5, trend=2.0)
    bias = fusion.bias(torch.tensor([1.0, -2.0]), popularity)
    assert bias.tolist() == pytest.approx([0.5 + 2 * math.log(9.1), -1.0 + 2 * math.log(0.1)])


def test_the_bare_network_keeps_its_bias() -> None:
    network = torch.tensor([0.25, -3.0])
    assert torch.equal(BARE.bias(network, Popularity(torch.ones(2), torch.ones(2))), network)


finite = st.floats(-1e3, 1e3)
positive = st.floats(1e-3, 1e3)


@given(value=finite, centers=st.tuples(finite, finite), scales=st.tuples(positive, positive))
def test_rescaling_brings_a_value_into_the_units_of_another_fit(
    value: float, centers: tuple[float, float], scales: tuple[float, float]
) -> None:
    current, stored = (Parameters("zscore", c, s) for c, s in zip(centers, scales, strict=True))
    a, b = rescaling(current, stored)
    normalised = (value - current.center) / current.scale
    expected = (value - stored.center) / stored.scale
    assert a * normalised + b == pytest.approx(expected, rel=1e-6, abs=1e-6 * (1 + abs(b)))
    assert rescaling(current, current) == (1.0, 0.0)
