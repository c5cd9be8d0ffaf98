"""The options of a synthetic shop, and what follows from them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recbatch.errors import UsageError
from recbatch.synthetic import assortment, calendar
from recbatch.synthetic.behaviour import World
from recbatch.synthetic.numbers import scatter

FileFormat = Literal["csv", "json", "parquet", "delta"]
TimeFormat = Literal["milliseconds", "text"]
TEXT_FORMATS = ("csv", "json")
LEAST_EVENTS, MOST_EVENTS = 2_000, 10_000_000_000
LEAST_ITEMS = assortment.EVERGREENS * assortment.CATEGORIES
MOST_FAULTS = 0.1
# Events a user, at most: more, and users would look like bots.
_MOST_A_USER = 1_000
# Days after the first part of the log that the second is about, and how far back late events reach.
MORE_DAYS, LATE_DAYS = 7, 14
_YEARS_AHEAD = 5


@dataclass(frozen=True)
class Shop:
    """What decides the content: seed, rows of the log, users, items, days, share of faults; and how it is written."""

    events: int
    users: int
    items: int
    seed: int = 7
    days: int = 365
    faults: float = 0.02
    extra_share: float = 0.0
    format: FileFormat = "csv"
    time: TimeFormat = "milliseconds"

    def __post_init__(self) -> None:
        _within("--events", self.events, LEAST_EVENTS, MOST_EVENTS)
        _within("--users", self.users, max(1, self.events // _MOST_A_USER), self.events)
        _within("--items", self.items, LEAST_ITEMS, 1 << 30)
        _within("--seed", self.seed, 0, 1 << 63)
        _within("--days", self.days, 10, 3650)
        _within("--faults", self.faults, 0, MOST_FAULTS)
        _within("--extra-share", self.extra_share, 0, 0.5)

    @property
    def writes_lines(self) -> bool:
        return self.format in TEXT_FORMATS

    def date(self, day: int) -> dt.date:
        return calendar.FIRST_DAY + dt.timedelta(days=day)

    @property
    def earliest(self) -> dt.date:
        """Nothing true is before this day."""
        return self.date(-2 * LATE_DAYS)

    @property
    def latest(self) -> dt.date:
        """Nothing true is after this day."""
        return self.date(self.days + LATE_DAYS)

    @property
    def ahead(self) -> int:
        """Days that the clock of a future event is fast."""
        return self.days + 365 * _YEARS_AHEAD

    def world(self, events: int, *, more: bool = False) -> World:
        """The users' world for `events` good events of the log, or of what comes after it."""
        first, days = (self.days, MORE_DAYS) if more else (0, self.days)
        return World(
            seed=np.uint64(self.seed),
            users=self.users,
            items=self.items,
            days=self.days,
            events=events,
            even=more,
            first_number=self.events if more else 0,
            step=scatter(self.users),
            first_second=calendar.FIRST_SECOND + first * calendar.DAY,
            log_second=calendar.FIRST_SECOND,
            hours=calendar.visit_hours(first, days),
        )


def _within(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise UsageError(f"{option} is {value:,}; it must be within {low:,} and {high:,}")
