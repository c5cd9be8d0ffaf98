"""When visits happen: days of the week, seasons and hours as one table, and wall-clock time as UTC."""

from __future__ import annotations

import datetime as dt
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

FIRST_DAY = dt.date(2025, 3, 24)
ZONE = "Europe/Berlin"
HOUR, DAY = 3_600, 86_400
_EPOCH = dt.date(1970, 1, 1)
FIRST_SECOND = (FIRST_DAY - _EPOCH).days * DAY
_WEEK = np.array([0.95, 0.9, 0.9, 1.0, 1.15, 1.3, 1.1])
# Nobody is there at night: what happens then was planted.
_HOURS = np.array([0, 0, 0, 0, 0, 1, 3, 6, 7, 7, 7, 8, 10, 8, 6, 6, 7, 9, 12, 14, 12, 8, 0, 0], dtype=np.float64)


def visit_hours(first: int, days: int) -> NDArray[np.float64]:
    """Cumulative weights (days * 24 + 1,), from 0 to 1, of the hours of `days` days from day `first` of the log on.

    Weekends have more visits than other days, winter more than summer, and the last week of November most.
    """
    dates = [FIRST_DAY + dt.timedelta(days=first + n) for n in range(days)]
    week = np.array([_WEEK[date.weekday()] for date in dates])
    season = np.array([1.0 + 0.25 * np.cos(2 * np.pi * (date.timetuple().tm_yday + 10) / 365) for date in dates])
    peak = np.array([2.0 if date.month == 11 and date.day >= 24 else 1.0 for date in dates])
    weights = np.outer(week * season * peak, _HOURS).ravel()
    cumulative = np.concatenate([[0.0], np.cumsum(weights)])
    cumulative /= cumulative[-1]
    return cumulative


def clock_changes(first: int, days: int) -> NDArray[np.int64]:
    """Wall-clock seconds since 1970 of the hours that a clock change leaves out or repeats in those days."""
    zone, found = ZoneInfo(ZONE), []
    for n in range(first, first + days):
        date = FIRST_DAY + dt.timedelta(days=n)
        midnight = dt.datetime.combine(date, dt.time(), zone)
        if midnight.utcoffset() != (midnight + dt.timedelta(days=1)).utcoffset():
            found.append((date - _EPOCH).days * DAY + 2 * HOUR)
    return np.array(found, dtype=np.int64)


@cache
def _offsets(first_year: int, last_year: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Wall-clock seconds from which an offset from UTC, in seconds, holds.

    In an hour that is left out the offset before it counts, in one that is repeated the earlier one, as in Java.
    """
    zone = ZoneInfo(ZONE)
    since: list[int] = []
    offsets: list[int] = []
    hour = dt.datetime(first_year, 1, 1, tzinfo=zone)
    while hour.year <= last_year:
        offset = hour.utcoffset() or dt.timedelta()
        if not offsets or offset.total_seconds() != offsets[-1]:
            since.append(int((hour.replace(tzinfo=dt.UTC)).timestamp()))
            offsets.append(int(offset.total_seconds()))
        hour += dt.timedelta(hours=1)
    return np.array(since, dtype=np.int64), np.array(offsets, dtype=np.int64)


def wall_to_utc(seconds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Wall-clock seconds in ZONE as seconds since 1970 in UTC."""
    since, offsets = _offsets(FIRST_DAY.year - 1, FIRST_DAY.year + 5)
    return seconds - offsets[np.searchsorted(since, seconds, side="right") - 1]
