"""The three moments that features are made for, and how much a pair weighs as of each of them."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DAY = 86_400
# A pair of the last day weighs 2^30, and sums stay below 2^63 for eight thousand million of them.
UNIT = 1 << 30
_SLOTS = 1 << 16


@dataclass(frozen=True)
class Cuts:
    """What is known at a cut are the events before it. Epoch seconds, validation < evaluation < release."""

    validation: int
    evaluation: int
    release: int

    @classmethod
    def before(cls, as_of: dt.datetime, holdout_days: int, validation_days: int, alignment_days: int) -> Cuts:
        """The release cut at `as_of`, the others at least so many days earlier.

        Those two lie on midnights that are `alignment_days` apart, counted from 1970-01-01, so that they stay where
        they are on most nights; with 0 they are not moved.
        """
        release = math.ceil(as_of.timestamp())
        evaluation = _aligned(release - holdout_days * _DAY, alignment_days)
        return cls(_aligned(evaluation - validation_days * _DAY, alignment_days), evaluation, release)

    def seconds(self) -> NDArray[np.int64]:
        """(3,) ascending."""
        return np.array([self.validation, self.evaluation, self.release], np.int64)

    def times(self) -> dict[str, dt.datetime]:
        """By the name of the snapshot."""
        names = {"release": self.release, "evaluation": self.evaluation, "validation": self.validation}
        return {name: dt.datetime.fromtimestamp(moment, dt.UTC) for name, moment in names.items()}


def _aligned(moment: int, days: int) -> int:
    return moment // (days * _DAY) * (days * _DAY) if days else moment


@dataclass(frozen=True)
class Decay:
    """weights: (3, S) int64, what a pair of a slot of `counting.slots_of` weighs as of each cut; 0: it is later."""

    first_day: int
    weights: NDArray[np.int64]

    @classmethod
    def create(cls, cuts: Cuts, half_life_days: float, first_event: int) -> Decay:
        """A pair of age a weighs UNIT * 2^(-a / half_life_days), rounded, and never less than 1.

        a: whole days, from the date of the pair to that of the last second before the cut. In integers, sums are the
        same in whatever order they are made.
        """
        moments = cuts.seconds()
        last_day = (cuts.release - 1) // _DAY
        first_day = max(first_event // _DAY, last_day + 1 - _SLOTS // len(moments))
        days = np.arange(first_day, last_day + 1)
        weights = np.zeros((len(moments), len(days), len(moments)), np.int64)
        for cut, moment in enumerate(moments.tolist()):
            age = np.maximum((moment - 1) // _DAY - days, 0)
            of_day = np.maximum(np.rint(UNIT * np.exp2(-age / half_life_days)), 1).astype(np.int64)
            weights[cut, :, : cut + 1] = of_day[:, None]
        return cls(int(first_day), weights.reshape(len(moments), -1))
