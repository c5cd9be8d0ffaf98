"""Prices and quantities, from counts to the parameters that normalise them and the mean price of items."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from recbatch.config.inputs import Missing
from recbatch.config.sections import Normalization
from recbatch.features.counting import FRACTION_BITS
from recbatch.features.counts import AMOUNTS, Counts
from recbatch.transforms.parameters import Parameters

_LOGARITHMS = ("log1p",)
_ORDERED = ("robust",)


def logarithms(methods: Mapping[str, Normalization]) -> tuple[str, ...]:
    """The amounts whose moments are taken of their logarithms."""
    return tuple(name for name, method in methods.items() if method in _LOGARITHMS)


def distinct(methods: Mapping[str, Normalization], fills: Mapping[str, Missing]) -> tuple[str, ...]:
    """The amounts whose distinct values are needed: for quartiles, a median or a mode, or a mean beside logarithms."""
    ordered = {name for name, missing in fills.items() if missing.strategy in ("median", "mode")}
    means = {name for name in fills if name not in ordered and methods[name] in _LOGARITHMS}
    return tuple(name for name, method in methods.items() if method in _ORDERED or name in ordered | means)


def fit_amounts(
    counts: Counts, cut: int, methods: Mapping[str, Normalization], fills: Mapping[str, Missing]
) -> dict[str, Parameters]:
    """Parameters of price and quantity as of a cut, fitted as by `normalization.fit` to the values that are there.

    fills: the strategies for missing ones that have to be learned; the mean stands for those of groups as well. Sums
    are exact, so that parameters depend on the values alone and not on the order in which they were added up.
    """
    return {name: _fit(counts, name, cut, method, fills.get(name)) for name, method in methods.items()}


def _fit(counts: Counts, name: str, cut: int, method: Normalization, missing: Missing | None) -> Parameters:
    number, mean, deviation = _moments(counts, name, cut)
    center, scale = 0.0, 1.0
    if number and method in ("zscore", "log1p"):
        center, scale = mean, deviation
    elif number and method == "minmax":
        at = AMOUNTS.index(name)
        center = float(counts.low[at, cut])
        scale = float(counts.high[at, cut]) - center
    elif number and method == "robust":
        low, center, high = _quantiles(counts, name, cut, (0.25, 0.5, 0.75))
        scale = high - low
    fill = None if missing is None or not number else _fill(counts, name, cut, missing, mean)
    return Parameters(method, center, scale or 1.0, fill)


def _fill(counts: Counts, name: str, cut: int, missing: Missing, mean: float) -> float:
    if missing.strategy == "median":
        return _quantiles(counts, name, cut, (0.5,))[0]
    if (name, cut) in counts.values:
        values, numbers = counts.values[name, cut]
        if missing.strategy == "mode":
            return float(values[numbers == numbers.max()].min())
        total = sum((Fraction(float(value)) * int(n) for value, n in zip(values, numbers, strict=True)), Fraction(0))
        return float(total / int(numbers.sum()))
    return mean


def _moments(counts: Counts, name: str, cut: int) -> tuple[int, float, float]:
    """How many values there are, their mean and their population deviation, each rounded once."""
    sums, high, low, numbers = counts.moments[AMOUNTS.index(name), :, cut].tolist()
    number = sum(numbers)
    if not number:
        return 0, 0.0, 0.0
    # A value is m * 2^(e - 150): see `counting.add_moments`.
    total = sum(value << exponent for exponent, value in enumerate(sums))
    squares = sum(((up << 24) + down) << 2 * e for e, (up, down) in enumerate(zip(high, low, strict=True)))
    mean = Fraction(total, number << 150)
    variance = Fraction(squares, number << 300) - mean * mean
    return number, float(mean), sqrt(variance)


def _quantiles(counts: Counts, name: str, cut: int, shares: tuple[float, ...]) -> list[float]:
    """With linear interpolation between neighbouring values, as Spark's percentile and numpy's default."""
    values, numbers = counts.values[name, cut]
    ends = numbers.cumsum()
    found = []
    for share in shares:
        place = share * (int(ends[-1]) - 1)
        low, high = (float(values[np.searchsorted(ends, at, side="right")]) for at in (int(place), int(np.ceil(place))))
        found.append(low + (high - low) * (place - int(place)))
    return found


def mean_prices(counts: Counts, cut: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The items that have a price before a cut, and the mean of each."""
    number, high, low = (counts.of_items(name)[cut] for name in ("priced", "price_high", "price_low"))
    items = np.flatnonzero(number)
    # In float64 each of these steps is rounded, always in the same way.
    total = high[items] * float(1 << 32) + low[items]
    return items, total / float(1 << FRACTION_BITS) / number[items]
