"""Bots and busy users: rows by their number, so that any file may hold any of them."""

from __future__ import annotations

import numpy as np

from recbatch.synthetic import assortment, calendar
from recbatch.synthetic.behaviour import VIEW, Integers, Log, World
from recbatch.synthetic.faults import CODES
from recbatch.synthetic.plan import FAULTY, REPEATED, Plan
from recbatch.synthetic.rows import Rows

# The hours of the wall clock in which they do all they do, which are of one day in UTC as well.
_FIRST_HOUR, _HOURS = 8, 12
_USERS_A_GROUP = 4


def crowd_rows(plan: Plan, world: World, numbers: Integers) -> Rows:
    """The rows `numbers` of all groups, (n,); a user's rows follow each other."""
    group, place = np.divmod(numbers, max(1, plan.group_rows))
    sizes = np.array([n for _, n in plan.group])
    ends = np.cumsum(sizes)
    stretch = np.searchsorted(ends, place, side="right")
    code = np.array([code for code, _ in plan.group])[stretch]
    user_of = np.array([0, 0, 0, 1, 1, 1, 2, 2, 3, 3])
    member = user_of[stretch]
    starts = np.array([0, ends[2], ends[5], ends[7]])
    rows_of = np.diff(np.append(starts, ends[-1]))
    k = place - starts[member]
    user = group * _USERS_A_GROUP + member
    # The last rows of a user are its first ones again.
    repeats = k >= rows_of[member] - REPEATED
    k = np.where(repeats, k - (rows_of[member] - REPEATED), k)
    return Rows(_log(plan, world, user, member, k, code), code)


def _log(plan: Plan, world: World, user: Integers, member: Integers, k: Integers, code: Integers) -> Log:
    day, minute = plan.limits
    day_of = plan.shop.days // 4 + user % max(1, plan.shop.days // 2)
    begin = calendar.FIRST_SECOND + day_of * calendar.DAY + _FIRST_HOUR * calendar.HOUR
    in_a_minute = member % 2 == 1
    span = np.where(in_a_minute, 60, _HOURS * calendar.HOUR) * 1000
    n = np.where(in_a_minute, minute, day) + 2 * FAULTY
    item = (user * 31 + k) % (assortment.EVERGREENS * assortment.CATEGORIES)
    price = 100 + (user * 7 + k) % 5_000
    negative = np.isin(code, [CODES["bot_volume_negative_price"], CODES["bot_rate_negative_price"]])
    zero = np.zeros(len(k), dtype=np.int64)
    return Log(
        number=plan.good + user,
        user=world.users + user,
        time=begin * 1000 + k * span // n,
        item=item,
        kind=zero + VIEW,
        quantity=zero,
        price=np.where(negative, -price, price),
        visit=plan.good + user,
        query=zero - 1,
    )
