"""The candidates of every user in a batch: bounds on their scores, the running cut, and the exact order at the end.

A candidate's reference score lies between `low` and `high`. `cut` is a score that k candidates of the user reach: an
item whose `high` is below it cannot be among the k best.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbatch.compilation import compiled

STEPS = 64
LOWEST = np.float32(np.finfo(np.float32).min)


class Histogram(NamedTuple):
    """How many lower bounds of a user lie above steps of width 1 / inverse from `base`: it raises the cut as they come.

    Exact selection, or a heap, would cost ten times as much a candidate. Bounds above the last step count with it.
    """

    base: NDArray[np.float32]  # (B,), infinite before there is a first cut
    inverse: NDArray[np.float32]  # (B,)
    step: NDArray[np.int64]  # (B,), of the cut
    above: NDArray[np.int64]  # (B,), bounds in that step and above
    counts: NDArray[np.int32]  # (B, STEPS)

    @classmethod
    def create(cls, n_users: int) -> Histogram:
        return cls(
            np.full(n_users, np.inf, np.float32),
            np.zeros(n_users, np.float32),
            np.zeros(n_users, np.int64),
            np.zeros(n_users, np.int64),
            np.zeros((n_users, STEPS), np.int32),
        )


class Pool(NamedTuple):
    """Room for C candidates of each of B users; those of user b are the first size[b] of row b."""

    cut: NDArray[np.float32]  # (B,)
    size: NDArray[np.int64]  # (B,)
    item: NDArray[np.int32]  # (B, C)
    low: NDArray[np.float32]  # (B, C)
    high: NDArray[np.float32]  # (B, C)
    added: NDArray[np.float32]  # (B, C)
    histogram: Histogram

    @classmethod
    def create(cls, n_users: int, k: int) -> Pool:
        shape = (n_users, 4 * k + 256)
        return cls(
            np.full(n_users, LOWEST),
            np.zeros(n_users, np.int64),
            np.empty(shape, np.int32),
            np.empty(shape, np.float32),
            np.empty(shape, np.float32),
            np.empty(shape, np.float32),
            Histogram.create(n_users),
        )


class Vectors(NamedTuple):
    """What a reference score is computed from."""

    users: NDArray[np.float64]  # (B, d), of float32 values
    items: NDArray[np.float32]  # (I, d)
    bias: NDArray[np.float32]  # (I,)
    tie_rank: NDArray[np.int64]  # (I,)
    terms: NDArray[np.float64]  # (w,) scratch, w the smallest power of two that is at least d / 2


@compiled
def kth_largest(values: Any, n: int, k: int) -> Any:
    """The k-th largest of values[:n], which are left in another order (Hoare's selection)."""
    low, high, wanted = 0, n - 1, n - k
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if wanted <= j:
            high = j
        elif wanted >= i:
            low = i
        else:
            break
    return values[wanted]


@compiled
def start_histogram(histogram: Histogram, user: int, cut: Any, highest: Any) -> None:
    """Count from `cut`, a score that k items reach, in steps that leave room above the highest score so far."""
    histogram.base[user] = cut
    width = (highest - cut) / np.float32(STEPS // 2)
    histogram.inverse[user] = np.float32(1) / width if width > np.float32(1e-30) else np.float32(0)
    histogram.step[user] = 0
    histogram.above[user] = 0
    histogram.counts[user] = 0


@compiled
def count(histogram: Histogram, k: int, user: int, low: Any) -> Any:
    """Count a lower bound that is at least the base; returns a score that k items reach, LOWEST for none new."""
    step = np.int64(min((low - histogram.base[user]) * histogram.inverse[user], np.float32(STEPS - 1)))
    histogram.counts[user, step] += 1
    histogram.above[user] += step >= histogram.step[user]
    return advance(histogram, k, user)


@compiled
def advance(histogram: Histogram, k: int, user: int) -> Any:
    """Move the cut up while k bounds lie in higher steps; returns its new score, LOWEST where it stays."""
    base, inverse, at = histogram.base[user], histogram.inverse[user], histogram.step[user]
    if inverse == 0:
        return LOWEST
    while at < STEPS - 1 and histogram.above[user] - histogram.counts[user, at] >= k:
        histogram.above[user] -= histogram.counts[user, at]
        at += 1
    if at == histogram.step[user]:
        return LOWEST
    histogram.step[user] = at
    edge = base + np.float32(at) / inverse
    return edge - (abs(edge) + abs(base)) * np.float32(1e-6)  # more than the arithmetic of the step loses


@compiled
def make_room(pool: Pool, vectors: Vectors, k: int, user: int) -> None:
    """See that a user whose pool is full has room for a quarter more."""
    most = pool.item.shape[1] - pool.item.shape[1] // 4
    raise_cut(pool, k, user)
    if pool.size[user] > most:  # the bounds cannot tell them apart: reference scores can
        score_exactly(pool, vectors, user, LOWEST)
        raise_cut(pool, k, user)
        if pool.size[user] > most:  # equal scores: only the k first of them matter
            _keep_first(pool, vectors, k, user)


@compiled
def raise_cut(pool: Pool, k: int, user: int) -> None:
    """Raise the cut to the k-th largest lower bound, drop what it rules out, and count from there."""
    if pool.size[user] >= k:
        _raise_to_kth(pool, k, user)
    drop_below_cut(pool, user)
    low = pool.low[user, : pool.size[user]]
    if len(low) >= k:
        start_histogram(pool.histogram, user, pool.cut[user], low.max())
        for i in range(len(low)):
            if low[i] >= pool.cut[user]:
                count(pool.histogram, k, user, low[i])


@compiled
def _raise_to_kth(pool: Pool, k: int, user: int) -> Any:
    low = pool.low[user, : pool.size[user]].copy()
    kth = kth_largest(low, len(low), k)
    pool.cut[user] = max(pool.cut[user], kth)
    return kth


@compiled
def drop_below_cut(pool: Pool, user: int) -> None:
    """Drop the candidates that the cut rules out."""
    low, high, item, added = pool.low[user], pool.high[user], pool.item[user], pool.added[user]
    cut, kept = pool.cut[user], 0
    for i in range(pool.size[user]):
        if high[i] >= cut:
            low[kept], high[kept], item[kept], added[kept] = low[i], high[i], item[i], added[i]
            kept += 1
    pool.size[user] = kept


@compiled
def score_exactly(pool: Pool, vectors: Vectors, user: int, least: Any) -> None:
    """Replace the bounds of a user's candidates by their reference scores where the lower one is `least` or more.

    Products of float32, exact in float64, are summed by adding the upper half of the (zero-padded) dimensions to the
    lower half until one is left; then bias, then addition; rounded once.
    """
    lows, highs, candidates, added = pool.low, pool.high, pool.item, pool.added
    users, items, bias, terms = vectors.users, vectors.items, vectors.bias, vectors.terms
    _touch(items, candidates, lows, user, pool.size[user], least)
    # Unsigned indices need no look at their sign.
    u, d = np.uint64(user), np.uint64(users.shape[1])
    for i in range(pool.size[user]):
        if lows[user, i] >= least and lows[user, i] != highs[user, i]:
            v, half = np.uint64(candidates[user, i]), np.uint64(len(terms))
            for j in range(half):
                terms[j] = users[u, j] * np.float64(items[v, j])
            for j in range(half, d):
                terms[j - half] += users[u, j] * np.float64(items[v, j])
            half = half // np.uint64(2)
            while half:
                for j in range(half):
                    terms[j] += terms[j + half]
                half = half // np.uint64(2)
            total = np.float32(terms[0] + np.float64(bias[v]) + np.float64(added[user, i]))
            total = total if total != 0 else np.float32(0)  # of two equal scores none may be -0.0, which sorts apart
            lows[user, i], highs[user, i] = total, total


@compiled
def reference_scores(vectors: Vectors, rows: Any, places: Any, added: Any, scores: Any) -> None:
    """Write to scores (N,) float32 the reference scores of the users rows (N,) for the items places (N,).

    added: (N,) float32, the additions of the pairs. The arithmetic is that of `score_exactly`, written out once more:
    as a function of one pair, which both would call, it takes ten times as long.
    """
    users, items, bias, terms = vectors.users, vectors.items, vectors.bias, vectors.terms
    d = np.uint64(users.shape[1])
    for i in range(len(rows)):
        u, v, half = np.uint64(rows[i]), np.uint64(places[i]), np.uint64(len(terms))
        for j in range(half):
            terms[j] = users[u, j] * np.float64(items[v, j])
        for j in range(half, d):
            terms[j - half] += users[u, j] * np.float64(items[v, j])
        half = half // np.uint64(2)
        while half:
            for j in range(half):
                terms[j] += terms[j + half]
            half = half // np.uint64(2)
        total = np.float32(terms[0] + np.float64(bias[v]) + np.float64(added[i]))
        scores[i] = total if total != 0 else np.float32(0)


@compiled
def _touch(items: Any, candidates: Any, lows: Any, user: int, n: int, least: Any) -> Any:
    """Read a number of every cache line that will be needed: many reads wait at a time, where sums wait for one."""
    total = np.float32(0)
    for i in range(n):
        if lows[user, i] >= least:
            for j in range(0, items.shape[1], 16):
                total += items[candidates[user, i], j]
    return total


@compiled
def in_order(pool: Pool, vectors: Vectors, user: int) -> Any:
    """Places in the pool of a user's candidates, scored exactly: score descending, then tie rank."""
    n = pool.size[user]
    bits = pool.low[user, :n].view(np.int32)
    key = np.empty(n, np.int64)
    for i in range(n):
        b = np.int64(bits[i])
        ascending = b if b >= 0 else np.int64(-2147483648) - b - 1  # as floats are ordered
        key[i] = ((-1 - ascending) << 32) | vectors.tie_rank[pool.item[user, i]]
    return np.argsort(key)


@compiled
def _keep_first(pool: Pool, vectors: Vectors, k: int, user: int) -> None:
    best = in_order(pool, vectors, user)[:k]
    item, low, added = pool.item[user][best], pool.low[user][best], pool.added[user][best]
    n = len(best)
    pool.item[user, :n] = item
    pool.low[user, :n] = low
    pool.high[user, :n] = low
    pool.added[user, :n] = added
    pool.size[user] = n
    pool.cut[user] = max(pool.cut[user], low[n - 1])
    pool.histogram.base[user] = np.float32(np.inf)  # what comes is counted when the pool is full again


@compiled
def finish(pool: Pool, vectors: Vectors, k: int, item: Any, score: Any) -> Any:
    """Write the k best of every user to item and score (B, k), best first; returns (B,) how many there are."""
    n_users = len(pool.size)
    found = np.empty(n_users, np.int64)
    for user in range(n_users):
        # The best by their bounds first: the k-th of their reference scores rules out many of the others.
        for best_first in (True, False):
            least = LOWEST
            if pool.size[user] > k:
                least = _raise_to_kth(pool, k, user)
                drop_below_cut(pool, user)
            score_exactly(pool, vectors, user, least if best_first else LOWEST)
        if pool.size[user] > k:
            _raise_to_kth(pool, k, user)
            drop_below_cut(pool, user)
        best = in_order(pool, vectors, user)
        n = min(k, len(best))
        found[user] = n
        for rank in range(n):
            item[user, rank] = pool.item[user, best[rank]]
            score[user, rank] = pool.low[user, best[rank]]
    return found
