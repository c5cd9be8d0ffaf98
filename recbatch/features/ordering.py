"""The compiled loops that put behaviours into the order of users and time, and cut lists out of them.

Behaviours of N users lie in flat columns: those of user n are offsets[n]..offsets[n + 1] - 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recbatch.compilation import compiled
from recbatch.features.sorting import count_up, sort_numbers, sort_places

_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX_B = np.uint64(0xBF58476D1CE4E5B9)
_MIX_C = np.uint64(0x94D049BB133111EB)


@compiled
def mix(value: np.uint64) -> np.uint64:
    """A bijection of 64 bits in which every bit depends on all (the finaliser of SplitMix64, Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_B
    value = (value ^ (value >> np.uint64(27))) * _MIX_C
    return value ^ (value >> np.uint64(31))


@compiled
def hash_texts(offsets: Any, data: Any) -> Any:
    """(N,) uint64: a hash of each of N texts, data[offsets[n]:offsets[n + 1]] (uint8)."""
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for n in range(len(hashes)):
        value = np.uint64(14695981039346656037)  # FNV-1a, then mixed: its upper bits are weak
        for at in range(offsets[n], offsets[n + 1]):
            value = (value ^ np.uint64(data[at])) * np.uint64(1099511628211)
        hashes[n] = mix(value)
    return hashes


@compiled
def tie_breakers(offsets: Any, users: Any, items: Any, item: Any, kind: Any, price: Any, quantity: Any) -> Any:
    """(M,) uint64: what orders the behaviours of a user in one second. Equal ones are equal in all columns.

    users (N,), items (I,): hashes of the ids. price, quantity: the bits of the float32 values as uint32. A hash, and
    one of the user as well: neither ids nor one order for all may reach the model.
    """
    ties = np.empty(len(item), np.uint64)
    for user in range(len(offsets) - 1):
        for at in range(offsets[user], offsets[user + 1]):
            value = mix(users[user] ^ items[item[at]])
            value = mix(value + _MIX * np.uint64(kind[at] + 1))
            ties[at] = mix(value ^ (np.uint64(price[at]) << np.uint64(32) | np.uint64(quantity[at])))
    return ties


@compiled
def place(code: Any, filled: Any) -> Any:
    """(M,): where each of M rows goes, so that those of user code[m] follow each other from filled[user] on.

    filled: (N,) the first free place of every user; it is used up.
    """
    places = np.empty(len(code), np.int64)
    for row in range(len(code)):
        places[row] = filled[code[row]]
        filled[code[row]] += 1
    return places


@compiled
def time_order(offsets: Any, fresh: Any, time: Any, tie: Any) -> Any:
    """(M,) places: every user's behaviours by time, then tie. Those of users that are not `fresh` (N,) are so."""
    order = count_up(len(time))
    for user in range(len(offsets) - 1):
        if fresh[user]:
            sort_places(order[offsets[user] : offsets[user + 1]], time, tie)
    return order


@compiled
def stops_before(offsets: Any, time: Any, moment: int) -> Any:
    """(N,): where the behaviours of every user that came before `moment` end; they are in the order of time."""
    stops = np.empty(len(offsets) - 1, np.int64)
    for user in range(len(stops)):
        low, high = offsets[user], offsets[user + 1]
        while low < high:
            middle = (low + high) // 2
            if time[middle] < moment:
                low = middle + 1
            else:
                high = middle
        stops[user] = low
    return stops


@compiled
def ranges(start: Any, stop: Any) -> Any:
    """The places start[n]..stop[n] - 1 of all n, one after another."""
    places = np.empty((stop - start).sum(), np.int64)
    at = 0
    for n in range(len(start)):
        for place_ in range(start[n], stop[n]):
            places[at] = place_
            at += 1
    return places


@compiled
def distinct_items(start: Any, stop: Any, item: Any, stamp: Any, first_stamp: int) -> Any:
    """The distinct items in start[n]..stop[n] - 1, ascending, of all n, and (N + 1,) where each n's begin.

    stamp: (I,) int64 scratch in which no entry is `first_stamp` or above; the next caller begins N later.
    """
    found = np.empty((stop - start).sum(), np.int32)
    bounds = np.zeros(len(start) + 1, np.int64)
    size = 0
    for n in range(len(start)):
        begin = size
        for at in range(start[n], stop[n]):
            if stamp[item[at]] != first_stamp + n:
                stamp[item[at]] = first_stamp + n
                found[size] = item[at]
                size += 1
        sort_numbers(found[begin:size])
        bounds[n + 1] = size
    return found[:size], bounds
