"""Confidence intervals of a mean over users, by resampling users.

Users are the unit of sampling: their lists are drawn up independently, the ranks within one list are not independent.
Percentile method: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

CONFIDENCE = 0.95
# Indices and values are 8 bytes each: about 32 MB at a time, or one resample where there are more users than this.
DRAWS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A mean over users and the bounds of its 95 % confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def mean_interval(values: FloatArray, samples: int, rng: np.random.Generator) -> Interval:
    """Percentile bootstrap of the mean of `values` (B,), one a user, from `samples` resamples of B users each.

    The same generator state gives the same interval. Raises ValueError on an empty or not finite `values`, or on
    `samples` below 1.
    """
    _check(values, "values")
    if samples < 1:
        raise ValueError(f"samples must be 1 or more; got {samples}")
    means = _resampled_means(values, samples, rng)
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(float(values.mean()), float(low), float(high))


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
    """Mean of each of `samples` resamples with replacement, (samples,)."""
    users = values.size
    at_once = max(1, DRAWS_AT_ONCE // users)
    means = np.empty(samples, dtype=np.float64)
    for start in range(0, samples, at_once):
        part = means[start : start + at_once]
        part[:] = values[rng.integers(0, users, size=(part.size, users))].mean(axis=1)
    return means


def _check(values: FloatArray, name: str) -> None:
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} must have one value a user for at least one user; its shape is {values.shape}")
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        raise ValueError(f"{name} must be finite; row {broken[0]} holds {values[broken[0]]}")
