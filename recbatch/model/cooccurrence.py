"""The compiled loops over neighbours: what a user's behaviours add to items, and what each of them added to a list."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbatch.compilation import compiled

_WORD = 64
# Multiplying a lone bit by it puts another value into the upper six bits for each of the 64 places (de Bruijn).
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_PLACES = np.zeros(_WORD, np.int64)
_PLACES[[(((1 << place) * int(_DE_BRUIJN)) % (1 << 64)) >> 58 for place in range(_WORD)]] = np.arange(_WORD)


@compiled
def sum_contributions(
    indptr: Any, indices: Any, weights: Any, items: Any, start: Any, stop: Any, powers: Any
) -> tuple[Any, Any, Any]:
    """c(u, i) where it is not zero: row boundaries (B + 1,), items ascending within a row (int32), sums (float64).

    items: all behaviours; those of user b are items[start[b]:stop[b]], in time order, in which they are added.
    powers[n]: the weight of the behaviour n places before the last.
    """
    n_items, n_users = len(indptr) - 1, len(start)
    size = 0
    for user in range(n_users):
        for at in range(start[user], stop[user]):
            if items[at] < n_items:
                size += indptr[items[at] + 1] - indptr[items[at]]
    rows = np.zeros(n_users + 1, np.int64)
    found, sums = np.empty(size, np.int32), np.empty(size, np.float64)
    total, touched = np.zeros(n_items, np.float64), np.zeros(n_items // _WORD + 1, np.uint64)
    n = 0
    for user in range(n_users):
        for at in range(start[user], stop[user]):
            item = items[at]
            if item < n_items:  # a newer item has no neighbours yet
                power = powers[stop[user] - 1 - at]
                for entry in range(indptr[item], indptr[item + 1]):
                    total[indices[entry]] += power * weights[entry]
                    touched[indices[entry] // _WORD] |= np.uint64(1) << np.uint64(indices[entry] % _WORD)
        for word in range(len(touched)):  # set bits, lowest first: the items in order, without sorting them
            bits = touched[word]
            while bits:
                lowest = bits & (~bits + np.uint64(1))
                item = word * _WORD + _PLACES[(lowest * _DE_BRUIJN) >> np.uint64(58)]
                found[n], sums[n] = item, total[item]
                total[item] = 0.0
                n += 1
                bits ^= lowest
            touched[word] = 0
        rows[user + 1] = n
    return rows, found[:n], sums[:n]


@compiled
def _share(
    indptr: Any,
    indices: Any,
    weights: Any,
    behaviours: Any,
    powers: Any,
    listed: Any,
    place: Any,
    shares: Any,
    wholes: Any,
) -> None:
    """What each behaviour (W,) of a user adds to each listed item (K,): shares (K, W), and their sums, wholes (K,).

    place: (I,) scratch of -1, and left so.
    """
    n_items = len(indptr) - 1
    shares[: len(listed)] = 0.0
    wholes[: len(listed)] = 0.0
    for rank in range(len(listed)):
        if listed[rank] < n_items:
            place[listed[rank]] = rank
    for back in range(min(len(behaviours), len(powers))):
        item = behaviours[back]
        if 0 <= item < n_items:
            for at in range(indptr[item], indptr[item + 1]):
                rank = place[indices[at]]
                if rank >= 0:
                    shares[rank, back] = powers[back] * weights[at]
                    wholes[rank] += shares[rank, back]
    for rank in range(len(listed)):
        if listed[rank] < n_items:
            place[listed[rank]] = -1


@compiled
def strongest_evidence(
    indptr: Any,
    indices: Any,
    weights: Any,
    behaviours: Any,
    powers: Any,
    rows: Any,
    listed: Any,
    similarity: Any,
    lam: float,
    eps: float,
) -> tuple[Any, Any]:
    """For N list entries the place of the behaviour with the most evidence (latest = 0), and whether by co-occurrence.

    behaviours: (B, W) item_idx, the latest first, -1 where a user has fewer. rows: (B + 1,) entries of every user in
    `listed`, (N,) item_idx. similarity: (N, V) what the network has, V <= W. The formula is that of `scoring.explain`.
    """
    n_items, width = len(indptr) - 1, behaviours.shape[1]
    largest = 0
    for user in range(len(rows) - 1):
        largest = max(largest, rows[user + 1] - rows[user])
    shares, wholes = np.zeros((largest, width), np.float64), np.zeros(largest, np.float64)
    place = np.full(max(n_items, 1), -1, np.int32)
    chosen, by_count = np.full(len(listed), -1, np.int64), np.zeros(len(listed), np.bool_)
    # What the share of a behaviour gains where one after it goes, and it moves one place towards the end.
    nearer = powers[0] / powers[1] - 1.0 if len(powers) > 1 else 0.0
    for user in range(len(rows) - 1):
        first, last = rows[user], rows[user + 1]
        _share(indptr, indices, weights, behaviours[user], powers, listed[first:last], place, shares, wholes)
        known = 0
        while known < width and behaviours[user, known] >= 0:
            known += 1
        for entry in range(first, last):
            rank = entry - first
            if wholes[rank] == 0.0 and 0 < known <= similarity.shape[1]:  # only the network speaks for it
                chosen[entry] = similarity[entry, :known].argmax()
                by_count[entry] = similarity[entry, chosen[entry]] < 0
                continue
            log_whole, best, older = np.log1p(wholes[rank] / eps), -np.inf, 0.0
            for back in range(known - 1, -1, -1):
                network = similarity[entry, back] if back < similarity.shape[1] else 0.0
                count = 0.0
                if wholes[rank] > 0:
                    # Rounding may leave a remainder just below zero where one behaviour holds the whole sum.
                    left = max(wholes[rank] - shares[rank, back] + nearer * older, 0.0)
                    count = lam * (log_whole - np.log1p(left / eps))
                older += shares[rank, back]
                if network + count >= best:
                    best, chosen[entry], by_count[entry] = network + count, back, count > network
    return chosen, by_count


@compiled
def renumbered(indptr: Any, indices: Any, weights: Any, order: Any, position: Any) -> tuple[Any, Any, Any]:
    """The neighbours with items numbered by `position` (I,); order: its inverse. Rows stay ascending.

    indptr may cover fewer items than there are: the newer ones have no neighbours.
    """
    n_items = len(indptr) - 1
    rows = np.zeros(len(order) + 1, np.int64)
    moved, moved_weights = np.empty_like(indices), np.empty_like(weights)
    n = 0
    for place in range(len(order)):
        item = order[place]
        if item < n_items:
            start, stop = indptr[item], indptr[item + 1]
            row = position[indices[start:stop]]
            ascending = np.argsort(row)
            moved[n : n + stop - start] = row[ascending]
            moved_weights[n : n + stop - start] = weights[start:stop][ascending]
            n += stop - start
        rows[place + 1] = n
    return rows, moved, moved_weights
