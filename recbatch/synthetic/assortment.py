"""Items as functions of their number: category, style, price by day, promotion, launch and withdrawal, complement.

Item `i` is the one of rank `i // CATEGORIES` in the popularity of category `i % CATEGORIES`. Nothing is stored, so that
a catalogue of any size costs a worker no memory. Days count from the first day of the log.
"""

from __future__ import annotations

import numpy as np

from recbatch.compilation import compiled
from recbatch.synthetic.numbers import below, subkey, uniform

CATEGORIES = 64
STYLES = 8
# The most popular items of every category are always there, so that a user always finds something.
EVERGREENS = 4
MOST_DAYS = 1 << 20
_ZIPF = 0.9
_STREAM = 1
_PRICE_DAYS, _PROMOTION_DAYS = 45, 7
_LEAST_PRICE = 50
_NEW_SHARE, _WITHDRAWN_SHARE, _PROMOTED_SHARE = 0.3, 0.15, 0.05


@compiled
def style(seed: np.uint64, item: int) -> int:
    return below(subkey(seed, _STREAM, item), 0, STYLES)


@compiled
def launch_day(seed: np.uint64, item: int, days: int) -> int:
    """The first day that the item is sold on; negative before the log begins."""
    key = subkey(seed, _STREAM, item)
    if item < EVERGREENS * CATEGORIES or uniform(key, 1) >= _NEW_SHARE:
        return -1 - below(key, 2, 700)
    return below(key, 3, max(1, (4 * days) // 5))


@compiled
def withdrawal_day(seed: np.uint64, item: int, days: int) -> int:
    """The first day that the item is no longer sold on; MOST_DAYS where it stays."""
    key = subkey(seed, _STREAM, item)
    if item < EVERGREENS * CATEGORIES or uniform(key, 4) >= _WITHDRAWN_SHARE:
        return MOST_DAYS
    return max(0, launch_day(seed, item, days)) + 20 + below(key, 5, max(1, days))


@compiled
def on_sale(seed: np.uint64, item: int, day: int, days: int) -> bool:
    return launch_day(seed, item, days) <= day < withdrawal_day(seed, item, days)


@compiled
def list_price(seed: np.uint64, item: int) -> int:
    """Price in the catalogue, in cents: log-uniform within two powers of ten, around the level of its category."""
    level = uniform(subkey(seed, _STREAM + 1, item % CATEGORIES), 0)
    cents = 200.0 * np.exp(2.0 * level + 3.5 * uniform(subkey(seed, _STREAM, item), 6))
    return int(cents) // 10 * 10 + 9


@compiled
def promoted(seed: np.uint64, item: int, day: int) -> bool:
    key = subkey(seed, _STREAM + 2, item)
    return uniform(key, (day + 1000 + below(key, 0, _PROMOTION_DAYS)) // _PROMOTION_DAYS) < _PROMOTED_SHARE


@compiled
def price(seed: np.uint64, item: int, day: int) -> int:
    """Price of that day in cents: the list price, moved every some weeks, and lower in a promotion."""
    key = subkey(seed, _STREAM + 3, item)
    period = (day + 1000 + below(key, 0, _PRICE_DAYS)) // _PRICE_DAYS
    factor = 0.9 + 0.25 * uniform(key, period)
    if promoted(seed, item, day):
        factor *= 0.6 + 0.2 * uniform(key, period + MOST_DAYS)
    return max(_LEAST_PRICE, int(list_price(seed, item) * factor))


@compiled
def complement(item: int, items: int) -> int:
    """The item that is bought with this one: its like in the neighbouring category; itself where there is none."""
    other = item // CATEGORIES * CATEGORIES + (item % CATEGORIES ^ 1)
    return other if other < items else item


@compiled
def zipf_item(u: float, category: int, items: int) -> int:
    """The item of `category` at the quantile `u` of Zipf's law over its items, by the inverse of the continuous law."""
    ranks = (items - category + CATEGORIES - 1) // CATEGORIES
    power = 1.0 - _ZIPF
    place = (((ranks + 1.0) ** power - 1.0) * u + 1.0) ** (1.0 / power)
    return min(ranks - 1, int(place) - 1) * CATEGORIES + category
