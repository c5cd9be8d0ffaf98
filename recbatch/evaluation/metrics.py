"""Metrics of recommendation lists, one value a user, vectorised over users.

Relevance is binary. With `h_r` = 1 where the item at rank `r` (from 1) is relevant and `n` the user's relevant items:

    hit_rate@k   1 if any h_r = 1 for r <= k, else 0
    accuracy@1   h_1, the top-1 accuracy: it is hit_rate@1 and precision@1, and recall@1 where n = 1   [R15]
    recall@k     sum_{r<=k} h_r / n
    precision@k  sum_{r<=k} h_r / k                          a short list is not forgiven: the divisor stays k
    f1@k         2 precision recall / (precision + recall) = 2 sum_{r<=k} h_r / (k + n)          [vR79]
    ndcg@k       sum_{r<=k} h_r / log2(r + 1)  /  sum_{r<=min(k, n)} 1 / log2(r + 1)             [JK02]
    mrr@k        1 / rank of the first relevant item if that rank is <= k, else 0                [V99]
    map@k        sum_{r<=k} h_r precision@r / min(k, n)                                          [MRS08]

[R15] Russakovsky et al., ImageNet large scale visual recognition challenge, IJCV 115, 2015, where one class is right;
what that calls accuracy at more ranks is the hit rate. [vR79] van Rijsbergen, Information Retrieval, 1979. [JK02]
Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002. [V99] Voorhees, The
TREC-8 question answering track report, 1999. [MRS08] Manning, Raghavan and Schütze, Introduction to Information
Retrieval, 2008, section 8.4.

When comparing with figures of other libraries: Spark's RankingMetrics agrees on precision, recall, NDCG and MAP. ranx
agrees on NDCG; its average precision divides by `n`, so it cannot reach 1 where n > k. RecTools divides MAP by `n` or
by `k` and, by default, normalises NDCG over all `k` ranks, so that it cannot reach 1 where n < k; its Accuracy counts
the irrelevant items that are not listed as well, and is near 1 whatever the list. With a perfect list, NDCG, MAP, MRR
and hit rate are 1 here for every user. `make oracle` compares the figures themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.float64]

ABSENT = -1


@dataclass(frozen=True, eq=False)
class Truth:
    """The relevant items of B users in CSR form.

    `indptr` (B + 1,): user u's items are `indices[indptr[u]:indptr[u + 1]]`, in any order.
    `indices` (total of relevant items,): item_idx, 0 or more.
    Raises ValueError if there is no user, if a user has no item or an item twice, or if the two arrays do not fit.
    """

    indptr: IntArray
    indices: IntArray

    def __post_init__(self) -> None:
        if self.indptr.ndim != 1 or self.indptr.size < 2 or self.indices.ndim != 1:
            raise ValueError(
                f"truth needs at least one user and flat arrays; indptr has shape {self.indptr.shape}, "
                f"indices {self.indices.shape}"
            )
        if self.indptr[0] != 0 or self.indptr[-1] != self.indices.size:
            raise ValueError(
                f"indptr must go from 0 to the {self.indices.size} indices; "
                f"it goes from {self.indptr[0]} to {self.indptr[-1]}"
            )
        empty = np.flatnonzero(self.counts < 1)
        if empty.size:
            raise ValueError(
                f"{empty.size} users have no relevant item, the first in row {empty[0]}; filter them before"
            )
        if self.indices.min() < 0:
            raise ValueError(f"item_idx must not be negative; the smallest relevant one is {self.indices.min()}")
        repeated = np.flatnonzero(np.diff(self.sorted_keys) == 0)
        if repeated.size:
            row, item = divmod(int(self.sorted_keys[repeated[0]]), self.key_base)
            raise ValueError(f"a relevant item is given twice: item_idx {item} of the user in row {row}")

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Relevant items a user, (B,)."""
        return np.diff(self.indptr).astype(np.int64)

    @cached_property
    def key_base(self) -> int:
        """Items fall below it, so that `row * key_base + item_idx` names a (user, item) pair uniquely."""
        return int(self.indices.max()) + 1

    @cached_property
    def sorted_keys(self) -> NDArray[np.int64]:
        """The keys of all relevant pairs, ascending."""
        rows = np.repeat(np.arange(self.counts.size, dtype=np.int64), self.counts)
        return np.sort(rows * self.key_base + self.indices)


def ranking_metrics(recommended: IntArray, truth: Truth, cutoffs: Sequence[int]) -> dict[str, FloatArray]:
    """Per-user values of every metric in the module's docstring, keyed by metric and cutoff: `ndcg@10`, `accuracy@1`.

    `recommended` (B, K): item_idx, best first; -1 (absent) fills lists shorter than K and counts as a miss.
    `truth`: the relevant items of the same B users in the same order. Each value is a float64 array (B,) within [0, 1].
    Raises ValueError if the users differ in number, a list repeats an item, or a cutoff is not within 1..K.
    Memory: about 50 bytes a user and rank up to the largest cutoff.
    """
    users = truth.counts.size
    if recommended.ndim != 2 or recommended.shape[0] != users:
        raise ValueError(f"recommended must be (users, ranks) for {users} users; it is {recommended.shape}")
    rows, ranks = _hits(checked_top(recommended, cutoffs), truth)
    # Position of a hit among its user's hits, from 1. Hits come row by row, so the row's first one is found by search.
    ordinals = np.arange(rows.size) - np.searchsorted(rows, rows) + 1
    discounts = 1.0 / np.log2(np.arange(2.0, max(cutoffs) + 2.0))
    ideal_dcg = np.cumsum(discounts)

    metrics = {"accuracy@1": np.bincount(rows[ranks == 1], minlength=users).astype(np.float64)}
    for k in cutoffs:
        within = ranks <= k
        row, rank, ordinal = rows[within], ranks[within], ordinals[within]
        first = ordinal == 1
        hits = np.bincount(row, minlength=users)
        achievable = np.minimum(truth.counts, k)
        metrics[f"hit_rate@{k}"] = (hits > 0).astype(np.float64)
        metrics[f"recall@{k}"] = hits / truth.counts
        metrics[f"precision@{k}"] = hits / k
        metrics[f"f1@{k}"] = 2.0 * hits / (k + truth.counts)
        metrics[f"ndcg@{k}"] = np.bincount(row, discounts[rank - 1], users) / ideal_dcg[achievable - 1]
        # Of no hits at all, bincount makes integers.
        metrics[f"mrr@{k}"] = np.bincount(row[first], 1.0 / rank[first], users).astype(np.float64)
        metrics[f"map@{k}"] = np.bincount(row, ordinal / rank, users) / achievable
    return metrics


def auc(scored_above: IntArray, tied: IntArray, candidates: IntArray, truth: Truth) -> FloatArray:
    """Area under the ROC curve of each user's ranking of all its candidates, ties counting half; (B,) within [0, 1].

    `scored_above` and `tied`, aligned with `truth.indices`: for each relevant item, how many candidates score strictly
    above it, and how many *other* candidates score the same; other relevant items are counted as any candidate.
    `candidates` (B,): items that were ranked for the user, excluded ones left out and relevant ones counted in; an
    excluded item has no rank and must not be in `truth`.

    With n relevant of N candidates, AUC = 1 - (sum_i (above_i + tied_i / 2) - n (n - 1) / 2) / (n (N - n)): the
    n (n - 1) / 2 pairs of two relevant items are taken out whatever their order. It is the Mann-Whitney U statistic
    over its maximum (Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology 143, 1982).
    Of a user without irrelevant candidates, of whom no ranking says anything, it is 1/2, as by chance.
    Raises ValueError on shapes that differ and counts that no ranking can have.
    """
    relevant = truth.counts
    if scored_above.shape != truth.indices.shape or tied.shape != truth.indices.shape:
        raise ValueError(
            f"scored_above {scored_above.shape} and tied {tied.shape} must have one value for each of the "
            f"{truth.indices.size} relevant items"
        )
    if candidates.shape != relevant.shape:
        raise ValueError(f"candidates {candidates.shape} must have one value for each of the {relevant.size} users")
    irrelevant = candidates - relevant
    if irrelevant.min() < 0:
        raise ValueError(f"the user in row {np.argmin(irrelevant)} has more relevant items than candidates")
    others = np.repeat(candidates - 1, relevant)
    if min(scored_above.min(), tied.min()) < 0 or np.any(scored_above + tied > others):
        raise ValueError("scored_above and tied must be 0 or more, together less than the number of candidates")
    preceding = np.add.reduceat(scored_above + tied / 2.0, truth.indptr[:-1])
    lost = preceding - relevant * (relevant - 1) / 2.0
    pairs = relevant * irrelevant
    impossible = np.flatnonzero((lost < 0) | (lost > pairs))
    if impossible.size:
        raise ValueError(
            f"no ranking has the counts of the user in row {impossible[0]}; "
            "scored_above and tied must count the other relevant items too"
        )
    return np.where(pairs > 0, 1.0 - lost / np.maximum(pairs, 1), 0.5)


def catalogue_coverage(recommended: IntArray, catalogue_size: int) -> float:
    """Share of the catalogue that at least one user is shown, of `recommended` (B, K) with -1 for absent.

    `catalogue_size`: how many items could have been recommended. Slice the columns to cover the first k only.
    Source: Ge, Delgado-Battenfeld and Jannach, Beyond accuracy: evaluating recommender systems by coverage and
    serendipity, RecSys 2010. Raises ValueError if more items are recommended than the catalogue has.
    """
    shown = recommended[recommended != ABSENT]
    if shown.size and shown.min() < 0:
        raise ValueError(f"item_idx must be 0 or more, or {ABSENT} for absent; found {shown.min()}")
    distinct = int(np.count_nonzero(np.bincount(shown))) if shown.size else 0
    if catalogue_size < max(distinct, 1):
        raise ValueError(f"a catalogue of {catalogue_size} items cannot hold the {distinct} recommended ones")
    return distinct / catalogue_size


def user_coverage(recommended: IntArray) -> float:
    """Share of users with at least one recommended item; `recommended` (B, K) has a row for every user to be served.

    Raises ValueError if there is no user.
    """
    if recommended.ndim != 2 or recommended.shape[0] == 0:
        raise ValueError(f"recommended must be (users, ranks) with at least one user; it is {recommended.shape}")
    return float((recommended != ABSENT).any(axis=1).mean())


def summary(metrics: Mapping[str, FloatArray]) -> dict[str, float]:
    """Mean over users of each per-user array, every user weighing the same. Raises ValueError if one has no user."""
    empty = [name for name, values in metrics.items() if values.size == 0]
    if empty:
        raise ValueError(f"no users to average over in {', '.join(empty)}")
    return {name: float(values.mean()) for name, values in metrics.items()}


def checked_top(recommended: IntArray, cutoffs: Sequence[int]) -> IntArray:
    """The ranks of `recommended` (B, K) up to the largest cutoff.

    Raises ValueError if a cutoff is not within 1..K, and if a list repeats an item, which would count twice, or holds
    an index below -1, which is a bug of the caller and not an absent item.
    """
    if not cutoffs or min(cutoffs) < 1 or max(cutoffs) > recommended.shape[1]:
        raise ValueError(
            f"cutoffs must be within 1..{recommended.shape[1]}, the length of the lists; got {list(cutoffs)}"
        )
    top = recommended[:, : max(cutoffs)]
    ordered = np.sort(top, axis=1)
    if ordered.min() < ABSENT:
        raise ValueError(f"item_idx must be 0 or more, or {ABSENT} for absent; found {ordered.min()}")
    repeated = np.argwhere((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != ABSENT))
    if repeated.size:
        row, column = repeated[0]
        raise ValueError(f"a list repeats an item: item_idx {ordered[row, column]} in row {row}")
    return top


def _hits(top: IntArray, truth: Truth) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and rank (from 1) of every recommended item that is relevant, ordered by row, then rank."""
    # Items beyond every relevant one would run into the next user's keys; like absent ones they cannot be a hit.
    rows, columns = np.nonzero((top != ABSENT) & (top < truth.key_base))
    keys = rows * truth.key_base + top[rows, columns]
    found = np.searchsorted(truth.sorted_keys, keys)
    # A key beyond the last one has nowhere to point; the last one differs from it.
    relevant = truth.sorted_keys[np.minimum(found, truth.sorted_keys.size - 1)] == keys
    return rows[relevant], columns[relevant] + 1
