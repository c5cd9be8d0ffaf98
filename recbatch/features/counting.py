"""The compiled loops that count over users' behaviours: who took what, and what led to what. All sums are integers.

So no sum depends on the order or the partitions in which users come, and what is counted again is counted the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recbatch.compilation import compiled
from recbatch.features.sorting import count_up, nth_largest, sort_places

FRACTION_BITS = 24  # amounts an item are added up in units of 2^-24
_LOW = (1 << 32) - 1
_LARGEST = float(1 << 38)


@compiled
def count_users(
    offsets: Any, item: Any, time: Any, cuts: Any, recents: Any, ever: Any, recent: Any, stamps: Any, first_stamp: int
) -> Any:
    """Add to ever, recent (C, I) the users that took an item before each of C cuts, and recently; flag first times.

    cuts, recents: (C,) ascending; an event counts as recent for cut c from recents[c] on. stamps: (C + 1, I) int64
    scratch as in `ordering.distinct_items`. Returns (M,) bool: whether a behaviour is its user's first with the item.
    """
    first = np.zeros(len(item), np.bool_)
    n_cuts = len(cuts)
    for user in range(len(offsets) - 1):
        stamp = first_stamp + user
        for at in range(offsets[user], offsets[user + 1]):
            which = item[at]
            new = stamps[n_cuts, which] != stamp
            if new:
                stamps[n_cuts, which] = stamp
                first[at] = True
            for cut in range(n_cuts):
                if time[at] < cuts[cut]:
                    if new:
                        ever[cut, which] += 1
                    if time[at] >= recents[cut] and stamps[cut, which] != stamp:
                        stamps[cut, which] = stamp
                        recent[cut, which] += 1
    return first


@compiled
def add_amounts(time: Any, item: Any, amount: Any, cuts: Any, number: Any, high: Any, low: Any) -> None:
    """Add to (C, I) int64 how many amounts (float32, NaN: none) an item has before each cut, and their exact sum.

    The sum is high * 2^32 + low, in units of 2^-FRACTION_BITS.
    """
    for at in range(len(amount)):
        value = np.float64(amount[at])
        if not np.isnan(value):
            units = np.int64(np.rint(min(max(value, -_LARGEST), _LARGEST) * (1 << FRACTION_BITS)))
            for cut in range(len(cuts)):
                if time[at] < cuts[cut]:
                    number[cut, item[at]] += 1
                    high[cut, item[at]] += units >> 32
                    low[cut, item[at]] += units & _LOW


@compiled
def add_moments(time: Any, bits: Any, cuts: Any, sums: Any, squares_high: Any, squares_low: Any, number: Any) -> None:
    """Add float32 values, given by their bits (uint32), to exact sums of them and of their squares.

    sums, squares_high, squares_low, number: (C, 256) int64, by binary exponent e: a value is +-m * 2^(e - 150) with an
    integer m below 2^24, and its square m^2 * 2^(2e - 300), m^2 = high * 2^24 + low (a superaccumulator as in Neal,
    "Fast exact summation using small and large superaccumulators", 2015). NaN is left out.
    """
    for at in range(len(bits)):
        exponent = np.int64((bits[at] >> np.uint32(23)) & np.uint32(255))
        mantissa = np.int64(bits[at] & np.uint32(0x7FFFFF))
        if exponent == 255:
            continue
        if exponent:
            mantissa |= 1 << 23
        else:
            exponent = np.int64(1)  # subnormal
        square = mantissa * mantissa
        signed = -mantissa if bits[at] >> np.uint32(31) else mantissa
        for cut in range(len(cuts)):
            if time[at] < cuts[cut]:
                number[cut, exponent] += 1
                sums[cut, exponent] += signed
                squares_high[cut, exponent] += square >> 24
                squares_low[cut, exponent] += square & 0xFFFFFF


@compiled
def slots_of(time: Any, cuts: Any, first_day: int) -> Any:
    """(M,) uint16: day and the number of cuts that are not after it, as one number: (day - first_day) * C + cuts.

    Days before `first_day` count as it, and what the last cut is not after as if it were.
    """
    slots = np.empty(len(time), np.uint16)
    n_cuts = len(cuts)
    for at in range(len(time)):
        reached = 0
        while reached < n_cuts - 1 and time[at] >= cuts[reached]:
            reached += 1
        slots[at] = max(time[at] // 86_400 - first_day, 0) * n_cuts + reached
    return slots


@compiled
def count_pairs(
    offsets: Any, item: Any, first: Any, slots: Any, weights: Any, window: int, width: int, totals: Any, sizes: Any
) -> None:
    """Count the pairs of `write_pairs`: `sizes` (P,) by part, and weight an item as target before each cut.

    weights: (C, S) int64 by slot. totals: (C, I) int64, added to.
    """
    for user in range(len(offsets) - 1):
        for at in range(offsets[user], offsets[user + 1]):
            if first[at]:
                found = 0
                for before in range(max(offsets[user], at - window), at):
                    if item[before] != item[at]:
                        found += 1
                        sizes[item[before] // width] += 1
                for cut in range(len(weights)):
                    totals[cut, item[at]] += found * weights[cut, slots[at]]


@compiled
def write_pairs(offsets: Any, item: Any, first: Any, slots: Any, window: int, width: int, begins: Any) -> Any:
    """(source, target, slot) of all pairs: source among the `window` behaviours before a first one with the target.

    Those of part p, the sources from p * width on, lie together from begins[p] on, and their sources are counted from
    p * width (uint16). width: 65,536 at most.
    """
    size = begins[-1]
    source, target, slot = np.empty(size, np.uint16), np.empty(size, np.int32), np.empty(size, np.uint16)
    free = begins.copy()
    for user in range(len(offsets) - 1):
        for at in range(offsets[user], offsets[user + 1]):
            if first[at]:
                for before in range(max(offsets[user], at - window), at):
                    if item[before] != item[at]:
                        part = item[before] // width
                        to = free[part]
                        free[part] = to + 1
                        source[to], target[to], slot[to] = item[before] - part * width, item[at], slots[at]
    return source, target, slot


@compiled
def group_pairs(source: Any, target: Any, slot: Any, bounds: Any, targets: Any, slots: Any) -> None:
    """Put pairs of a part to those of their source: source s has the places bounds[s].. of `targets`, `slots`.

    bounds: (W,) the first free place of every source, moved on.
    """
    for at in range(len(source)):
        to = bounds[source[at]]
        bounds[source[at]] = to + 1
        targets[to], slots[to] = target[at], slot[at]


@compiled
def _sums(targets: Any, slots: Any, weights: Any, total: Any) -> tuple[Any, int]:
    """Add a source's pairs to `total` (I,); returns the targets that have any, and the sum over all."""
    found = np.empty(len(targets), np.int32)
    n, whole = 0, 0
    for at in range(len(targets)):
        weight = weights[slots[at]]
        if weight:
            if total[targets[at]] == 0:
                found[n] = targets[at]
                n += 1
            total[targets[at]] += weight
            whole += weight
    return found[:n], whole


@compiled
def _best(damped: Any, ties: Any, size: int) -> Any:
    """The places of the `size` greatest of `damped`, descending; of equal ones the smallest of `ties` come first."""
    if len(damped) <= size:
        kept = count_up(len(damped))
    else:
        limit = nth_largest(damped, size)
        kept = np.empty(len(damped), np.int64)
        n = 0
        for place in range(len(damped)):
            if damped[place] >= limit:
                kept[n] = place
                n += 1
        kept = kept[:n]
    sort_places(kept, -damped, ties)
    return kept[:size]


@compiled
def neighbours_of_all(
    bounds: Any,
    targets: Any,
    slots: Any,
    weights: Any,
    damping: Any,
    unit: float,
    source_power: float,
    ties: Any,
    size: int,
) -> tuple[Any, Any, Any]:
    """The `size` targets of greatest damped weight of each of W sources, and these weights (float32), descending.

    bounds: (W + 1,) places of each source's pairs in targets, slots (M,). weights: (S,) int64 by slot in multiples of
    `unit`, 0 for what does not count. damping: (I,) by target. ties: (I,) uint64, the smaller comes first.
    Returns the number of neighbours (W,) and all neighbours and weights, one source after another.
    """
    n_sources = len(bounds) - 1
    sizes = np.zeros(n_sources, np.int64)
    most = 0
    for source in range(n_sources):
        most += min(size, bounds[source + 1] - bounds[source])
    neighbours, found_weights = np.empty(most, np.int32), np.empty(most, np.float32)
    total = np.zeros(len(ties), np.int64)
    n = 0
    for source in range(n_sources):
        mine = slice(bounds[source], bounds[source + 1])
        found, whole = _sums(targets[mine], slots[mine], weights, total)
        damped, their_ties = np.empty(len(found), np.float64), np.empty(len(found), np.uint64)
        source_damping = (whole / unit) ** source_power
        for place in range(len(found)):
            damped[place] = total[found[place]] / unit / (source_damping * damping[found[place]])
            their_ties[place] = ties[found[place]]
            total[found[place]] = 0
        for place in _best(damped, their_ties, size):
            neighbours[n], found_weights[n] = found[place], damped[place]
            n += 1
            sizes[source] += 1
    return sizes, neighbours[:n], found_weights[:n]
