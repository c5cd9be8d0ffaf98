"""Two ways to hold out behaviours of ragged sequences, as positions: nothing is copied.

User n of N has the positions `offsets[n]`..`offsets[n + 1] - 1` of flat columns, in the order of time.

Every position is trained on, or is a target of the validation, or one of the test: of exactly one of the three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]

_SHORTEST = 3  # behaviours of a user that leave one to learn from, one to validate and one to test


@dataclass(frozen=True, eq=False)
class Holdout:
    """The M users with a target, by their place in the input, ascending.

    user `users[m]` has the history `start[m]`..`middle[m] - 1` and the targets `middle[m]`..`stop[m] - 1`; a history
    may be empty, targets never are.
    """

    users: Positions
    start: Positions
    middle: Positions
    stop: Positions


@dataclass(frozen=True, eq=False)
class Split:
    """user n is trained on `offsets[n]`..`train_stop[n] - 1`, of which there may be none; train_stop: (N,)."""

    train_stop: Positions
    validation: Holdout
    test: Holdout


def leave_one_out(offsets: NDArray[np.integer[Any]]) -> Split:
    """The last behaviour of every user is the test's target, the last but one the validation's, which the test knows.

    Users with fewer than three behaviours are trained on and nothing else. Protocol of Kang and McAuley, Self-attentive
    sequential recommendation, ICDM 2018, section IV. It lets a model learn from what others did after a user's test;
    `global_time_split` does not. Raises ValueError where `offsets` (N + 1,) do not start at 0 and grow.
    """
    bounds = _checked(offsets)
    start, stop = bounds[:-1], bounds[1:]
    users = np.flatnonzero(stop - start >= _SHORTEST)
    train_stop = stop.copy()
    train_stop[users] -= 2
    begin, end = start[users], stop[users]
    return Split(train_stop, Holdout(users, begin, end - 2, end - 1), Holdout(users, begin, end - 1, end))


def global_time_split(
    offsets: NDArray[np.integer[Any]], times: NDArray[Any], validation_from: float, test_from: float
) -> Split:
    """One moment for all: what lies before `validation_from` is trained on, the rest before `test_from` validates.

    Moments belong to what follows them; `times` (T,) and both moments have the same unit. The test's histories hold the
    time of the validation. Protocol of Meng et al., Exploring data splitting strategies for the evaluation of
    recommendation models, RecSys 2020, "temporal global".
    Raises ValueError where `offsets` do not fit `times`, a user's times fall, or the moments are not in order.
    """
    bounds = _checked(offsets)
    if times.shape != (bounds[-1],):
        raise ValueError(f"offsets end at {bounds[-1]}; times have the shape {times.shape}")
    if validation_from > test_from:
        raise ValueError(f"the validation begins at {validation_from}, after the test, which begins at {test_from}")
    falls = np.flatnonzero(np.diff(times) < 0) + 1
    falls = falls[~np.isin(falls, bounds)]
    if falls.size:
        raise ValueError(f"times must not fall within a user; they do at position {falls[0]}")
    train_stop, test_start = (_first_from(bounds, times, moment) for moment in (validation_from, test_from))
    return Split(
        train_stop,
        _holdout(bounds[:-1], train_stop, test_start),
        _holdout(bounds[:-1], test_start, bounds[1:]),
    )


def _checked(offsets: NDArray[np.integer[Any]]) -> Positions:
    if offsets.ndim != 1 or offsets.size == 0 or offsets[0] != 0 or bool((np.diff(offsets) < 0).any()):
        raise ValueError(f"offsets must start at 0 and never fall; got an array of shape {offsets.shape}")
    return offsets.astype(np.int64)


def _first_from(offsets: Positions, times: NDArray[Any], moment: float) -> Positions:
    """Every user's first position from `moment` on, or the end of the user's positions, (N,)."""
    before = np.concatenate([[0], np.cumsum(times < moment)])
    return np.asarray(offsets[:-1] + before[offsets[1:]] - before[offsets[:-1]], dtype=np.int64)


def _holdout(start: Positions, middle: Positions, stop: Positions) -> Holdout:
    users = np.flatnonzero(stop > middle)
    return Holdout(users, start[users], middle[users], stop[users])
