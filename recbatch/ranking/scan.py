"""One tile of first-pass products: sparse terms put in, candidates taken out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbatch.compilation import compiled, compiled_fused
from recbatch.ranking.candidates import (
    LOWEST,
    STEPS,
    Pool,
    Vectors,
    advance,
    count,
    kth_largest,
    make_room,
    start_histogram,
)

_BLOCK = 32  # products compared at a time: a few vector instructions, and one branch for all of them


class Sparse(NamedTuple):
    """A Csr as it is walked through, tile by tile; next[b] is the first entry of user b that is not behind."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    next: NDArray[np.int64]


class Masks(NamedTuple):
    """Which items the users of a segment may get; of_user is -1 for a user who may get all."""

    allowed: NDArray[np.bool_]  # (S, I)
    of_user: NDArray[np.int64]  # (B,)


class Tile(NamedTuple):
    """Items start..start+n-1 for the users `rows`, known by a product p (R, n), int32 or float32, of narrowed vectors.

    The score of user r for item j is p * scale[r] * step[j] + bias[j], give or take error[r] * norm[j] + margin[r].
    """

    start: int
    rows: NDArray[np.int64]  # (R,)
    scale: NDArray[np.float32]  # (R,)
    error: NDArray[np.float32]  # (R,)
    margin: NDArray[np.float32]  # (R,)
    step: NDArray[np.float32]  # (n,)
    norm: NDArray[np.float32]  # (n,)
    bias: NDArray[np.float32]  # (n,)


@compiled
def scan(
    products: Any,
    hidden: Any,
    tile: Tile,
    excluded: Sparse,
    added: Sparse,
    masks: Masks,
    pool: Pool,
    vectors: Vectors,
    k: int,
) -> None:
    """Put into the pool what may be among the k best; products are overwritten."""
    n, n_rows = len(tile.bias), len(tile.rows)
    groups = 1
    while groups < 2 * k:
        groups *= 2
    maxima = np.empty(groups, np.float32)
    _hide_masked(products, hidden, tile, masks)
    _hide(products, hidden, tile, excluded)
    _push_added(products, hidden, tile, added, pool, vectors, k)
    for r in range(n_rows):
        user = tile.rows[r]
        if pool.cut[user] == LOWEST and 2 * groups <= n:
            _first_cut(products[r], hidden, tile, r, maxima, pool, k)
    _push_reaching(products, hidden, tile, pool, vectors, k)


@compiled
def _hide_masked(products: Any, hidden: Any, tile: Tile, masks: Masks) -> None:
    allowed, of_user, rows = masks.allowed, masks.of_user, tile.rows
    for r in range(len(rows)):
        mask = of_user[rows[r]]
        if mask >= 0:
            for j in range(len(tile.bias)):
                if not allowed[mask, tile.start + j]:
                    products[r, j] = hidden


@compiled
def _hide(products: Any, hidden: Any, tile: Tile, excluded: Sparse) -> None:
    indptr, indices, following, rows = excluded.indptr, excluded.indices, excluded.next, tile.rows
    start, stop = tile.start, tile.start + len(tile.bias)
    for r in range(len(rows)):
        at, end = following[rows[r]], indptr[rows[r] + 1]
        while at < end and indices[at] < start:
            at += 1
        while at < end and indices[at] < stop:
            products[r, indices[at] - start] = hidden
            at += 1
        following[rows[r]] = at


@compiled
def _push_added(products: Any, hidden: Any, tile: Tile, added: Sparse, pool: Pool, vectors: Vectors, k: int) -> None:
    """Items with an addition are taken out of the products, so that the scan need not look for them."""
    indptr, indices, values, following, rows = added.indptr, added.indices, added.values, added.next, tile.rows
    scales, errors, margins, steps, norms, biases = tile.scale, tile.error, tile.margin, tile.step, tile.norm, tile.bias
    start, stop, cuts = tile.start, tile.start + len(tile.bias), pool.cut
    for r in range(len(rows)):
        user = rows[r]
        at, end = following[user], indptr[user + 1]
        while at < end and indices[at] < start:
            at += 1
        while at < end and indices[at] < stop:
            j = indices[at] - start
            if products[r, j] != hidden:
                score = np.float32(products[r, j]) * scales[r] * steps[j] + biases[j] + values[at]
                error = errors[r] * norms[j] + margins[r]
                products[r, j] = hidden
                if score + error >= cuts[user]:
                    _push(pool, vectors, k, user, indices[at], score - error, score + error, values[at])
            at += 1
        following[user] = at


@compiled
def _first_cut(line: Any, hidden: Any, tile: Tile, r: int, maxima: Any, pool: Pool, k: int) -> None:
    """A first cut before anything is listed: k groups of items hold one each that reaches the k-th largest maximum."""
    groups, scale, error = len(maxima), tile.scale[r], tile.error[r]
    maxima[:] = LOWEST
    steps, norms, biases = tile.step, tile.norm, tile.bias
    for base in range(0, len(biases) - groups + 1, groups):
        for g in range(groups):
            at, to = np.uint64(base) + np.uint64(g), np.uint64(g)
            score = np.float32(line[at]) * scale * steps[at] + biases[at] - error * norms[at]
            score = score if line[at] != hidden else LOWEST
            maxima[to] = max(score, maxima[to])
    user, highest = tile.rows[r], maxima.max()
    cut = kth_largest(maxima, groups, k) - tile.margin[r]
    if cut > LOWEST:
        pool.cut[user] = cut
        start_histogram(pool.histogram, user, cut, highest)


@compiled_fused
def _mark_blocks(
    line: Any, scale: Any, error: Any, steps: Any, norms: Any, biases: Any, least: Any, marks: Any
) -> None:
    """Whether an item of a full block can reach `least`. It alone touches every pair, and does no more."""
    for block in range(len(line) // _BLOCK):
        # Slices, because an index that may be negative keeps the compiler from using vector instructions.
        base = block * _BLOCK
        part, bias = line[base : base + _BLOCK], biases[base : base + _BLOCK]
        step, norm = steps[base : base + _BLOCK], norms[base : base + _BLOCK]
        reaching = np.int32(0)
        for j in range(_BLOCK):
            score = np.float32(part[j]) * scale * step[j] + bias[j]
            reaching |= np.int32(score + error * norm[j] >= least)
        marks[block] = reaching != 0


@compiled
def _push_reaching(products: Any, hidden: Any, tile: Tile, pool: Pool, vectors: Vectors, k: int) -> None:
    # All fields are taken out once: each time one is, the array's references are counted.
    scales, errors, margins, steps, norms, biases = tile.scale, tile.error, tile.margin, tile.step, tile.norm, tile.bias
    items, lows, highs, added, sizes, cuts = pool.item, pool.low, pool.high, pool.added, pool.size, pool.cut
    histogram = pool.histogram
    bases, inverses, places, above, counts = (
        histogram.base,
        histogram.inverse,
        histogram.step,
        histogram.above,
        histogram.counts,
    )
    score, bound, reaching = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.int64)
    marks = np.ones(-(-len(biases) // _BLOCK), np.bool_)  # the last block, if it is not full, stays marked
    for r in range(len(tile.rows)):
        # Row by row, so that what is pushed is still in the nearest cache.
        row, user, scale, error, margin = np.uint64(r), tile.rows[r], scales[r], errors[r], margins[r]
        _mark_blocks(products[r], scale, error, steps, norms, biases, cuts[user] - margin, marks)
        for block in range(len(marks)):
            if not marks[block]:
                continue
            base = block * _BLOCK
            n = min(_BLOCK, len(biases) - base)
            for lane in range(n):  # unsigned: see `_mark_blocks`; a slice would be counted as a reference
                at, to = np.uint64(base) + np.uint64(lane), np.uint64(lane)
                score[to] = np.float32(products[row, at]) * scale * steps[at] + biases[at]
                bound[to] = error * norms[at] + margin
            found, cut = 0, cuts[user]
            for j in range(n):  # without a branch to guess wrongly
                reaching[found] = j
                found += score[j] + bound[j] >= cut
            for i in range(found):
                j = reaching[i]
                if products[row, base + j] != hidden:
                    size, low = sizes[user], score[j] - bound[j]
                    items[user, size], added[user, size] = tile.start + base + j, 0
                    lows[user, size], highs[user, size] = low, score[j] + bound[j]
                    sizes[user] = size + 1
                    if low >= bases[user]:
                        step = np.int64(min((low - bases[user]) * inverses[user], np.float32(STEPS - 1)))
                        counts[user, step] += 1
                        above[user] += step >= places[user]
                        if above[user] - counts[user, places[user]] >= k:
                            cuts[user] = max(cuts[user], advance(histogram, k, user))
                    if size + 1 == items.shape[1]:
                        make_room(pool, vectors, k, user)


@compiled
def push_skipped(
    skipped: Any,
    tile_items: int,
    n_eligible: int,
    user_norms: Any,
    item_norms: Any,
    excluded: Sparse,
    added: Sparse,
    masks: Masks,
    pool: Pool,
    vectors: Vectors,
    k: int,
) -> None:
    """Add the items whose addition may lift them into the list, though their tile was skipped for the user."""
    for user in range(len(user_norms)):
        seen, end = excluded.indptr[user], excluded.indptr[user + 1]
        for at in range(added.indptr[user], added.indptr[user + 1]):
            item = added.indices[at]
            if item >= n_eligible:
                break
            if not skipped[user, item // tile_items]:
                continue
            value = np.float64(added.values[at])
            longest = np.float64(user_norms[user]) * item_norms[item]
            most = vectors.bias[item] + longest + value
            most += (longest + abs(most)) * 1e-5
            if most < pool.cut[user]:
                continue
            if masks.of_user[user] >= 0 and not masks.allowed[masks.of_user[user], item]:
                continue
            while seen < end and excluded.indices[seen] < item:
                seen += 1
            if seen < end and excluded.indices[seen] == item:
                continue
            _push(pool, vectors, k, user, item, LOWEST, np.float32(most), added.values[at])


@compiled
def _push(pool: Pool, vectors: Vectors, k: int, user: int, item: int, low: Any, high: Any, addition: Any) -> None:
    n = pool.size[user]
    pool.item[user, n], pool.low[user, n], pool.high[user, n], pool.added[user, n] = item, low, high, addition
    pool.size[user] = n + 1
    if low >= pool.histogram.base[user]:
        pool.cut[user] = max(pool.cut[user], count(pool.histogram, k, user, low))
    if n + 1 == pool.item.shape[1]:
        make_room(pool, vectors, k, user)
