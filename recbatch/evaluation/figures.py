"""What a test comes down to: every metric of every scorer with its interval, the paired differences, the slices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from recbatch.evaluation.bootstrap import Interval, mean_intervals, paired_difference
from recbatch.evaluation.metrics import FloatArray, Truth
from recbatch.evaluation.protocol import Outcome
from recbatch.evaluation.slices import METRICS, WHOLE, Slice, slice_metrics

PRIMARY = METRICS[0]


class Figure(NamedTuple):
    """A row of the table `evaluations`, without what is the same in all rows of a run; low, high: None for coverage."""

    scorer: str
    target_kind: str
    slice: str
    metric: str
    mean: float
    low: float | None
    high: float | None
    users: int


@dataclass(frozen=True)
class Resampling:
    """How often users are drawn, and the seed of each of the intervals: equal users are drawn alike in all of them."""

    samples: int
    seed: int

    def intervals(self, values: Mapping[str, FloatArray]) -> dict[str, Interval]:
        """By name, as `mean_intervals`."""
        return mean_intervals(values, self.samples, np.random.default_rng(self.seed))


def metric_figures(kind: str, outcomes: Mapping[str, Outcome], resampling: Resampling) -> list[Figure]:
    """Every metric of every scorer over all users."""
    figures = []
    for scorer, outcome in outcomes.items():
        figures += _of_metrics(scorer, kind, WHOLE, outcome.per_user, resampling)
        users = len(outcome.lists)
        figures += [
            Figure(scorer, kind, WHOLE, name, share, None, None, users) for name, share in outcome.coverage.items()
        ]
    return figures


def difference_figure(
    kind: str, outcomes: Mapping[str, Outcome], scorer: str, other: str, resampling: Resampling
) -> Figure:
    """The primary metric of `scorer` less that of `other`, user by user."""
    mine, theirs = (outcomes[name].per_user[PRIMARY] for name in (scorer, other))
    gain = paired_difference(mine, theirs, resampling.samples, np.random.default_rng(resampling.seed))
    return Figure(f"{scorer} - {other}", kind, WHOLE, PRIMARY, gain.mean, gain.low, gain.high, len(mine))


def slice_figures(
    kind: str, outcomes: Mapping[str, Outcome], truth: Truth, slices: Iterable[Slice], resampling: Resampling
) -> list[Figure]:
    """The metrics of slices for every scorer of `outcomes`; a slice without users has none."""
    figures = []
    for part in slices:
        for scorer, outcome in outcomes.items():
            values = slice_metrics(outcome.lists, truth, part)
            if values:
                figures += _of_metrics(scorer, kind, part.name, values, resampling)
    return figures


def best_of(outcomes: Mapping[str, Outcome], scorers: Iterable[str]) -> str:
    """The scorer with the highest mean of the primary metric."""
    return max(scorers, key=lambda name: float(outcomes[name].per_user[PRIMARY].mean()))


def _of_metrics(
    scorer: str, kind: str, part: str, values: Mapping[str, FloatArray], resampling: Resampling
) -> list[Figure]:
    users = len(next(iter(values.values())))
    intervals = resampling.intervals(values)
    return [Figure(scorer, kind, part, name, one.mean, one.low, one.high, users) for name, one in intervals.items()]
