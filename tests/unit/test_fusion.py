"""The terms of the score that depend on the item alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbatch.model.fusion import BARE, Fusion, Popularity
from recbatch.training.fusion import exceeds_error


def test_trend_and_bias_follow_their_formula() -> None:
    popularity = Popularity(ever=torch.tensor([50.0, 0.0]), recent=torch.tensor([8.0, 0.0]))
    assert popularity.trend().tolist() == pytest.approx([math.log(8 + 0.02 * 50 + 0.1), math.log(0.1)])
    fusion = Fusion(lam=1.0, eps=1.0, behaviours=5, decay=1.0, network_bias=0.5, trend=2.0)
    bias = fusion.bias(torch.tensor([1.0, -2.0]), popularity)
    assert bias.tolist() == pytest.approx([0.5 + 2 * math.log(9.1), -1.0 + 2 * math.log(0.1)])


def test_the_bare_network_keeps_its_bias() -> None:
    network = torch.tensor([0.25, -3.0])
    assert torch.equal(BARE.bias(network, Popularity(torch.ones(2), torch.ones(2))), network)


def test_a_gain_counts_where_it_is_larger_than_its_standard_error() -> None:
    # Mean 0.1 and deviation 1: the standard error falls to the mean at 100 users.
    assert not exceeds_error(np.resize([1.1, -0.9], 98))
    assert exceeds_error(np.resize([1.1, -0.9], 102))
    assert not exceeds_error(-np.resize([1.1, -0.9], 102))
    assert not exceeds_error(np.zeros(10))
