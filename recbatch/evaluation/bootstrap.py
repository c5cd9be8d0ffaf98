"""Confidence intervals of a mean over users, by resampling users.

Users are the unit of sampling: their lists are drawn up independently, the ranks within one list are not independent.
Percentile method: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over users and the bounds of its 95 % confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def mean_intervals(values: Mapping[str, FloatArray], samples: int, rng: np.random.Generator) -> dict[str, Interval]:
    """Percentile bootstrap of the mean of every array (B,), one value a user, from `samples` resamples of B users each.

    All arrays belong to the same users and share the resamples. The same generator state gives the same intervals.
    Raises ValueError on arrays of different lengths, on an empty or not finite one, and on `samples` below 1.
    Memory: the values once more, and 16 bytes a user.
    """
    for name, one in values.items():
        _check(one, name)
    if samples < 1:
        raise ValueError(f"samples must be 1 or more; got {samples}")
    together = np.stack(list(values.values()), axis=1)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(_resampled_means(together, samples, rng), [tail, 1.0 - tail], axis=0)
    means = together.mean(axis=0)
    return {name: Interval(float(means[n]), float(low[n]), float(high[n])) for n, name in enumerate(values)}


def mean_interval(values: FloatArray, samples: int, rng: np.random.Generator) -> Interval:
    """As `mean_intervals`, of one array (B,)."""
    return mean_intervals({"values": values}, samples, rng)["values"]


def paired_difference(values: FloatArray, baseline: FloatArray, samples: int, rng: np.random.Generator) -> Interval:
    """Bootstrap of the mean of `values - baseline`, both (B,) over the same users in the same order.

    A resample takes both values of a user together, which removes the variance between users that the two share (Koehn,
    Statistical significance tests for machine translation evaluation, EMNLP 2004). Positive: `values` is larger.
    Raises ValueError as `mean_interval`, and if the two differ in shape.
    """
    if values.shape != baseline.shape:
        raise ValueError(f"a paired difference needs the same users: {values.shape} against {baseline.shape}")
    _check(values, "values")
    _check(baseline, "baseline")
    return mean_interval(values - baseline, samples, rng)


def _resampled_means(values: FloatArray, samples: int, rng: np.random.Generator) -> FloatArray:
    """Mean of each column of `values` (B, M) in each of `samples` resamples with replacement, (samples, M)."""
    users = len(values)
    means = np.empty((samples, values.shape[1]), dtype=np.float64)
    for sample in range(samples):
        # How often each user was drawn: one product then serves all metrics, where gathering would be done for each.
        times = np.bincount(rng.integers(0, users, size=users), minlength=users)
        means[sample] = times.astype(np.float64) @ values / users
    return means


def _check(values: FloatArray, name: str) -> None:
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} must have one value a user for at least one user; its shape is {values.shape}")
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        raise ValueError(f"{name} must be finite; row {broken[0]} holds {values[broken[0]]}")
