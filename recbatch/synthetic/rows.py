"""The raw rows of a range of users: what they did, and what was planted among it. Arrays, not yet text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbatch.synthetic import calendar
from recbatch.synthetic.behaviour import Integers, Log, World, behaviour, first_numbers
from recbatch.synthetic.faults import ACCEPTED, CODES, FAULTS, NONE, codes_of
from recbatch.synthetic.plan import MAIN, Plan
from recbatch.synthetic.shop import LATE_DAYS, MORE_DAYS

_DAY_MS = calendar.DAY * 1000
_ADDS = np.array([fault.adds for fault in FAULTS] + [False])  # NONE is the last place
_ACCEPTED = np.array([fault.outcome == ACCEPTED for fault in FAULTS] + [True])
_NEGATIVE_PRICE = ("negative_price", "several", "bot_volume_negative_price", "bot_rate_negative_price")


@dataclass(frozen=True)
class Rows:
    """Events as columns, and the code of what was planted at each, (n,)."""

    log: Log
    code: Integers

    def __len__(self) -> int:
        return len(self.code)

    def take(self, chosen: Integers) -> Rows:
        return Rows(Log(*[column[chosen] for column in self.log]), self.code[chosen])

    def coded(self, code: int | Integers) -> Rows:
        """The same events with another code."""
        return Rows(self.log, np.full(len(self), code, dtype=np.int64) if isinstance(code, int) else code)

    def at(self, *names: str) -> Integers:
        """Where one of the faults was planted."""
        return np.flatnonzero(np.isin(self.code, codes_of(*names)))


def joined(parts: Iterable[Rows]) -> Rows:
    every = list(parts)
    columns = [np.concatenate(column) for column in zip(*[part.log for part in every], strict=True)]
    return Rows(Log(*columns), np.concatenate([part.code for part in every]))


def rows_of_users(plan: Plan, worlds: dict[str, World], users: Integers) -> tuple[Rows, Rows]:
    """The rows that come with `users`, as delivered, and those of them that are accepted, as they should come out.

    worlds: of the parts by name. Good rows that come a second time do so with users far away in the order.
    """
    log = behaviour(worlds[plan.part], users)
    planted = plan.assign(worlds[plan.part], log.number)
    base = Rows(log, np.where(_ADDS[planted], NONE, planted))
    added = np.flatnonzero(_ADDS[planted])
    beside = base.take(added).coded(planted[added])
    again = _again(plan, worlds[MAIN], (users + plan.shop.users // 2) % plan.shop.users)
    copies = joined([beside, again])
    _change(plan, base)
    _reprice(copies)
    return joined([base, copies]), _true(plan, base, beside)


def _again(plan: Plan, world: World, users: Integers) -> Rows:
    """The first events of the log that `users` made, as they come a second time."""
    last = plan.redelivered + plan.repriced
    found = users[first_numbers(world, users) < last]
    log = behaviour(world, found)
    code = np.where(log.number < plan.redelivered, CODES["redelivered"], CODES["repriced"])
    rows = Rows(log, code)
    return rows.take(np.flatnonzero(log.number < last))


def _change(plan: Plan, rows: Rows) -> None:
    """What a fault does to numbers; what it does to text is done where text is made."""
    log, number = rows.log, rows.log.number
    late = rows.at("late")
    least = 1 if plan.part == MAIN else MORE_DAYS + 1
    log.time[late] -= (least + number[late] % LATE_DAYS) * _DAY_MS
    ahead = rows.at("future")
    log.time[ahead] += plan.shop.ahead * _DAY_MS
    changes = calendar.clock_changes(0, plan.shop.days)
    moved = rows.at("daylight_saving_hour")
    if len(moved):
        # Events of one visit are less than an hour of steps apart, so that no two of them meet.
        log.time[moved] = (changes[number[moved] % len(changes)] + number[moved] * 7 % calendar.HOUR) * 1000
    price = rows.at(*_NEGATIVE_PRICE)
    log.price[price] *= -1
    quantity = rows.at("negative_quantity", "several")
    log.quantity[quantity] = -1 - number[quantity] % 3


def _reprice(rows: Rows) -> None:
    """Another price for the same event, higher or lower by the event's number."""
    chosen = rows.at("key_duplicate", "repriced")
    price = rows.log.price[chosen]
    rows.log.price[chosen] = np.where(_cheaper(rows.log.number[chosen]), price // 2, price * 2)


def _cheaper(number: Integers) -> NDArray[np.bool_]:
    return (number & 1).astype(np.bool_)


def _true(plan: Plan, base: Rows, beside: Rows) -> Rows:
    """The accepted rows: of two events that share a key the one with smaller content, here the cheaper one."""
    rows = base.take(np.flatnonzero(_ACCEPTED[base.code]))
    number = rows.log.number
    twice = np.isin(number, beside.log.number[beside.at("key_duplicate")])
    if plan.part == MAIN:
        twice |= (plan.redelivered <= number) & (number < plan.reserved)
    won = np.flatnonzero(twice & _cheaper(number))
    rows.log.price[won] //= 2
    return rows
