"""What users do, as a compiled function of the seed and their numbers: views, searches, carts, purchases."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbatch.compilation import compiled
from recbatch.synthetic import assortment
from recbatch.synthetic.numbers import below, bits, subkey, uniform

Integers = NDArray[np.int64]

VIEW, SEARCH, CART, PURCHASE = range(4)
LANGUAGES, PHRASES = 12, 6
VISIT_EVENTS = 8
# A visit's share of a user's events is drawn between 0 and twice the mean.
LONGEST_VISIT = 2 * VISIT_EVENTS + 1
_USERS, _VISITS = 11, 12
_CART = 8
_FAVOURITES = 3


class World(NamedTuple):
    """What every user's behaviour depends on.

    hours: cumulative weights of the hours that visits may begin in, the first of them at `first_second` of the wall
    clock. even: whether users share the events equally. first_number: of the first event; numbers name visits.
    """

    seed: np.uint64
    users: int
    items: int
    days: int
    events: int
    even: bool
    first_number: int
    step: int
    first_second: int
    log_second: int
    hours: NDArray[np.float64]


class Log(NamedTuple):
    """Events as columns: wall-clock time in milliseconds, price in cents; quantity 0 and query -1 mean none."""

    number: Integers
    user: Integers
    time: Integers
    item: Integers
    kind: Integers
    quantity: Integers
    price: Integers
    visit: Integers
    query: Integers


@compiled
def first_event(world: World, rank: int) -> int:
    """The number of events of all users whose rank by activity is below `rank`.

    The Lorenz curve p (1 - (1 - p)^(3/4)): one percent of the users has a good three percent of the events. It needs
    sums, products and roots alone, which round the same everywhere and keep the order.
    """
    if world.even:
        return world.events * rank // world.users
    p = rank / world.users
    left = 1.0 - p
    return int(world.events * (p * (1.0 - np.sqrt(left) * np.sqrt(np.sqrt(left)))))


@compiled
def activity_rank(world: World, user: int) -> int:
    """Scattered, so that every range of users has all sorts of them."""
    return user * world.step % world.users


@compiled
def count_events(world: World, users: Integers) -> Integers:
    """Events of each user, (n,)."""
    counts = np.empty(len(users), dtype=np.int64)
    for n, user in enumerate(users):
        rank = activity_rank(world, user)
        counts[n] = first_event(world, rank + 1) - first_event(world, rank)
    return counts


@compiled
def first_numbers(world: World, users: Integers) -> Integers:
    """The number of each user's first event, (n,)."""
    numbers = np.empty(len(users), dtype=np.int64)
    for n, user in enumerate(users):
        numbers[n] = first_event(world, activity_rank(world, user))
    return numbers


@compiled
def _favourite(world: World, user_key: np.uint64, slot: int, day: int) -> int:
    """A category that the user likes; every slot is filled anew after some months of its own."""
    period = 60 + below(user_key, 3 * slot, 120)
    epoch = (day + 1000 + below(user_key, 3 * slot + 1, period)) // period
    u = uniform(subkey(user_key, slot, epoch), 0)
    return int(assortment.CATEGORIES * u * u)


@compiled
def _seasonal(key: np.uint64, counter: int, day: int) -> int:
    """Of two categories the one whose season is nearer."""
    best, least = 0, 1000
    for n in range(2):
        category = below(key, counter + n, assortment.CATEGORIES)
        distance = abs((day - category * 365 // assortment.CATEGORIES) % 365 - 182)
        if 182 - distance < least:
            best, least = category, 182 - distance
    return best


@compiled
def _item_in(world: World, key: np.uint64, counter: int, category: int, style: int, day: int) -> int:
    """A popular item of the category that is sold on that day, rather one in the style that the user likes."""
    for n in range(4):
        item = assortment.zipf_item(uniform(key, counter + n), category, world.items)
        if not assortment.on_sale(world.seed, item, day, world.days):
            continue
        if n == 3 or assortment.style(world.seed, item) == style or uniform(key, counter + 4 + n) < 0.3:
            return item
    return below(key, counter + 8, assortment.EVERGREENS) * assortment.CATEGORIES + category


@compiled
def _choose(world: World, user_key: np.uint64, key: np.uint64, counter: int, category: int, day: int) -> int:
    """What is looked at next: one of the user's staples, or something in the category of the visit."""
    style = below(subkey(user_key, 20, day // 90), 0, assortment.STYLES)
    u = uniform(key, counter)
    if u < 0.25:
        slot = below(key, counter + 1, _FAVOURITES)
        staple = subkey(user_key, 21 + slot, day // 120)
        return _item_in(world, staple, 0, _favourite(world, user_key, slot, day), style, day)
    return _item_in(world, key, counter + 2, category, style, day)


@compiled
def _put(world: World, log: Log, at: int, key: np.uint64, second: int, item: int, kind: int) -> int:
    day = (second - world.log_second) // 86_400
    log.time[at] = second * 1000 + below(key, 1_000_000 + second % 86_400, 1000)
    log.item[at], log.kind[at] = item, kind
    log.price[at] = assortment.price(world.seed, item, day)
    log.quantity[at], log.query[at] = 0, -1
    return at + 1


@compiled
def _visit(world: World, log: Log, at: int, end: int, user_key: np.uint64, second: int, cart: Integers) -> None:
    """Fill the rows from `at` to `end` with one visit, which begins at `second` of the wall clock."""
    key = subkey(world.seed, _VISITS, log.visit[at])
    day = (second - world.log_second) // 86_400
    buys, carted, item, begin = uniform(key, 0) < 0.6, 0, -1, at
    category = _seasonal(key, 1, day)
    if uniform(key, 3) < 0.75:
        category = _favourite(world, user_key, below(key, 4, _FAVOURITES), day)
    fetched, wanted = False, 0.3
    while at < end:
        counter = 100 + 20 * (at - begin)
        second += 5 + below(key, counter, 85)
        if buys and carted > 0 and end - at <= carted:
            for n in range(end - at):
                at = _put(world, log, at, key, second, cart[n], PURCHASE)
            break
        u = uniform(key, counter + 1)
        if (
            item >= 0
            and not fetched
            and carted < _CART
            and u < wanted + 0.3 * assortment.promoted(world.seed, item, day)
        ):
            cart[carted], fetched = item, True
            carted += 1
            at = _put(world, log, at, key, second, item, CART)
            continue
        partner = assortment.complement(item, world.items)
        goes_with = fetched and u < 0.45 and assortment.on_sale(world.seed, partner, day, world.days)
        item = partner if goes_with else _choose(world, user_key, key, counter + 4, category, day)
        wanted = 0.7 if goes_with else 0.3
        fetched = _holds(cart, carted, item)
        searches = at == begin and u < 0.3
        at = _put(world, log, at, key, second, item, SEARCH if searches else VIEW)
        if searches:
            language = below(user_key, 50, LANGUAGES)
            phrase = language * PHRASES + below(key, counter + 2, PHRASES)
            log.query[at - 1] = item % assortment.CATEGORIES * LANGUAGES * PHRASES + phrase


@compiled
def _holds(cart: Integers, carted: int, item: int) -> bool:
    for n in range(carted):  # noqa: SIM110 (numba has no generator expressions)
        if cart[n] == item:
            return True
    return False


@compiled
def _quantities(log: Log, key: np.uint64, begin: int, end: int) -> None:
    for at in range(begin, end):
        if log.kind[at] >= CART:
            several = uniform(key, 2 * (at - begin) + 5_000_000) < 0.2
            log.quantity[at] = 1 + several * below(key, 2 * (at - begin) + 5_000_001, 4)


@compiled
def _begin_of_visit(world: World, quantile: float) -> int:
    cell = min(int(np.searchsorted(world.hours, quantile, side="right")), len(world.hours) - 1) - 1
    share = (quantile - world.hours[cell]) / (world.hours[cell + 1] - world.hours[cell])
    return world.first_second + int((cell + share) * 3600)


@compiled
def fill(world: World, users: Integers, counts: Integers, log: Log) -> None:
    """Fill `log`, which has room for sum(counts) events, with those of `users`."""
    at, cart = 0, np.empty(_CART, dtype=np.int64)
    for user, count in zip(users, counts):  # noqa: B905 (numba knows no strict)
        user_key = subkey(world.seed, _USERS, user)
        first = world.first_number + first_event(world, activity_rank(world, user))
        visits = (count + VISIT_EVENTS - 1) // VISIT_EVENTS
        # Of the first event's number: another part of the log has other visits.
        plan_key = bits(user_key, first)
        begin = 0
        for n in range(visits):
            end = count
            if n + 1 < visits:
                end = int((n + 1 + uniform(plan_key, 2 * n + 1)) * count / visits)
            for k in range(begin, end):
                log.number[at + k], log.user[at + k], log.visit[at + k] = first + k, user, first + begin
            if end > begin:
                second = _begin_of_visit(world, (n + uniform(plan_key, 2 * n)) / visits)
                _visit(world, log, at + begin, at + end, user_key, second, cart)
                _quantities(log, bits(plan_key, 3_000_000 + n), at + begin, at + end)
            begin = end
        at += count


def behaviour(world: World, users: Integers) -> Log:
    """All events of `users`, in order."""
    counts = count_events(world, users)
    log = Log(*[np.empty(int(counts.sum()), dtype=np.int64) for _ in Log._fields])
    fill(world, users, counts, log)
    return log
