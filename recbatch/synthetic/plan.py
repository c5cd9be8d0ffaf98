"""Which rows of one part of the log are planted: exact numbers, and their places as a function of the event's number.

The numbers follow from the options alone, so that the truth about a log is known before its first row is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from recbatch.compilation import compiled
from recbatch.synthetic import calendar, faults
from recbatch.synthetic.behaviour import LONGEST_VISIT, VISIT_EVENTS, Integers, World, first_event
from recbatch.synthetic.faults import CODES, FAULTS
from recbatch.synthetic.numbers import below, scatter, subkey
from recbatch.synthetic.shop import MORE_DAYS, Shop

MAIN, MORE = "events", "events_more"
_SLOTS = 31
_REDELIVERED, _REPRICED = 0.08, 0.03
_LATE_IN_MORE = 0.1
_DEFAULT_LIMITS = (10_000, 1_000)
# Valid rows of a bot above the limit, its rows with another fault, and repeated rows of it or of a busy user.
ABOVE, FAULTY, REPEATED = 3, 5, 2
# Most visits fall on one day in November; of the weights of the days, at most this multiple of the mean.
_BUSIEST_DAY = 4
# Half hours as busy as the busiest that a day could have.
_HALF_HOURS = 18


@dataclass(frozen=True)
class Plan:
    """The planted rows of one part.

    slots: rows by code that are planted at one good event each. redelivered, repriced: the events of the first part,
    from number 0 on, that come a second time. groups: of bots and busy users. limits: events a day and a minute.
    """

    shop: Shop
    part: str
    rows: int
    slots: tuple[int, ...]
    redelivered: int
    repriced: int
    groups: int
    limits: tuple[int, int]

    @property
    def good(self) -> int:
        """Events that users really made, some of which get a fault."""
        added = sum(n for n, fault in zip(self.slots, FAULTS, strict=True) if fault.adds)
        return self.rows - added - self.redelivered - self.repriced - self.groups * self.group_rows

    @property
    def reserved(self) -> int:
        """Good events, the first ones, that get no fault, because they come twice."""
        return self.redelivered + self.repriced if self.part == MAIN else 0

    @cached_property
    def group(self) -> list[tuple[int, int]]:
        """The rows of one group in order, as (code, rows): a bot by volume, one by rate, and two busy users."""
        day, minute = self.limits
        codes = CODES
        return [
            (codes["bot_volume"], day + ABOVE),
            (codes["bot_volume_negative_price"], FAULTY),
            (codes["bot_volume"], REPEATED),
            (codes["bot_rate"], minute + ABOVE),
            (codes["bot_rate_negative_price"], FAULTY),
            (codes["bot_rate"], REPEATED),
            (codes["busy_user"], day),
            (codes["busy_user_duplicate"], REPEATED),
            (codes["busy_user"], minute),
            (codes["busy_user_duplicate"], REPEATED),
        ]

    @property
    def group_rows(self) -> int:
        return sum(n for _, n in self.group)

    @cached_property
    def planted(self) -> dict[str, int]:
        """Rows by the name of their fault."""
        found = dict(zip((fault.name for fault in FAULTS), self.slots, strict=True))
        found |= {"redelivered": self.redelivered, "repriced": self.repriced}
        for code, n in self.group:
            found[FAULTS[code].name] += self.groups * n
        return found

    def assign(self, world: World, numbers: Integers) -> Integers:
        """The code planted at each of the good events `numbers` of this part (n,), or NONE."""
        total = sum(self.slots)
        if total == 0:
            return np.full(len(numbers), faults.NONE, dtype=np.int64)
        bounds = np.cumsum(np.array(self.slots, dtype=np.int64))
        skipped = world.first_number + self.reserved
        return _assign(world.seed, numbers - skipped, self.good - self.reserved, total, scatter(total), bounds)


@compiled
def _assign(seed: np.uint64, places: Integers, n: int, slots: int, step: int, bounds: Integers) -> Integers:
    """Every slot is one place in its own stretch of 0..n-1, and its kind a scattered number of the slot."""
    codes = np.full(len(places), faults.NONE, dtype=np.int64)
    stretches, length = np.uint64(slots), np.uint64(n)
    for k, place in enumerate(places):
        if place < 0:
            continue
        slot = np.uint64(place) * stretches // length
        begin = (slot * length + stretches - np.uint64(1)) // stretches
        end = ((slot + np.uint64(1)) * length + stretches - np.uint64(1)) // stretches
        key = subkey(seed, _SLOTS, int(np.int64(slot)))
        if place == np.int64(begin) + below(key, 0, int(np.int64(end - begin))):
            scattered = np.int64(slot * np.uint64(step) % stretches)
            codes[k] = np.searchsorted(bounds, scattered, side="right")
    return codes


def plan_main(shop: Shop) -> Plan:
    """The plan of the log itself."""
    planted = shop.events * shop.faults
    limits, groups = _limits(shop)
    return Plan(
        shop,
        MAIN,
        shop.events,
        _slots(shop, shop.events, 0, shop.days),
        round(planted * _REDELIVERED),
        round(planted * _REPRICED),
        groups,
        limits,
    )


def plan_more(shop: Shop, main: Plan) -> Plan:
    """The plan of what comes after the log: later events, some of them late, and some of the log's own once more."""
    rows = round(shop.events * shop.extra_share)
    slots = list(_slots(shop, rows, shop.days, MORE_DAYS))
    if shop.faults > 0:
        slots[CODES["late"]] = round(rows * _LATE_IN_MORE)
    again = min(main.redelivered, round(rows * shop.faults * _REDELIVERED))
    return Plan(shop, MORE, rows, tuple(slots), again, 0, 0, main.limits)


def _slots(shop: Shop, rows: int, first_day: int, days: int) -> tuple[int, ...]:
    possible = {""} | ({"text"} if shop.writes_lines else set())
    possible.add("milliseconds" if shop.time == "milliseconds" else "wall")
    if shop.time == "text" and len(calendar.clock_changes(first_day, days)) == 0:
        possible.remove("wall")
    least = 1 if rows >= 2_000 and shop.faults > 0 else 0
    counts = []
    for fault in FAULTS:
        count = max(least, round(rows * shop.faults * fault.share)) if fault.share > 0 else 0
        counts.append(count if fault.needs in possible else 0)
    return tuple(counts)


def _limits(shop: Shop) -> tuple[tuple[int, int], int]:
    """Events a user may have a day and a minute, and the number of groups that exceed or just reach them.

    The limits are the defaults of cleaning where the log is large enough for bots of that size, else lower ones. No
    other user reaches them: that is bounded by the visits that the most active user may begin in a day, and in the
    half hour that a visit may last.
    """
    world = shop.world(shop.events)
    most = max(int(first_event(world, shop.users) - first_event(world, shop.users - 1)), shop.events // shop.users + 1)
    moved = int(most * shop.faults * 2) + 2
    a_day = (_BUSIEST_DAY * most // (VISIT_EVENTS * shop.days) + 2) * LONGEST_VISIT + moved
    at_once = _BUSIEST_DAY * most // (_HALF_HOURS * VISIT_EVENTS * shop.days) + 3
    a_minute = max(60, at_once * LONGEST_VISIT + moved)
    limits = (max(a_day, 2 * a_minute), a_minute)
    room = shop.events * shop.faults * 0.2
    if 2 * sum(_DEFAULT_LIMITS) <= room:
        limits = (max(limits[0], _DEFAULT_LIMITS[0]), max(limits[1], _DEFAULT_LIMITS[1]))
    group = 2 * sum(limits)
    if shop.faults == 0:
        return limits, 0
    return limits, max(int(room // group), 1 if group < 0.15 * shop.events else 0)
