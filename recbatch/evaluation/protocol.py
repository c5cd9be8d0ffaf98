"""Ranks all items for users whose later behaviour is known: lists through the scoring kernel, AUC from all scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from recbatch.errors import InputContractError
from recbatch.evaluation.baselines import Scores
from recbatch.evaluation.metrics import ABSENT, Truth, auc, catalogue_coverage, ranking_metrics
from recbatch.evaluation.novelty import Known, novelty_metrics
from recbatch.model.histories import Sequences
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import top_k

_BATCH_USERS = 256
_DENSE_SCORES = 1 << 24  # at most so many scores of some users by all items are held at once

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Cases:
    """N users to rank for: their past, what they took later, and the items that are left out of their lists.

    histories: with prices and quantities as they lie in the table, since every model has a normalisation of its own.
    """

    histories: Sequences
    truth: Truth
    excluded: Csr | None
    eligible: NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """The lists (N, K) of item_idx, -1 where one is shorter, and what they are worth by the name of the metric.

    per_user: (N,) each. coverage: the shares of the catalogue that the lists cover.
    """

    lists: NDArray[np.int64]
    per_user: dict[str, FloatArray]
    coverage: dict[str, float]


def make_cases(
    histories: Sequences, seen: Csr, targets: Csr, eligible: NDArray[np.bool_], *, new_only: bool
) -> tuple[Cases, NDArray[np.int64]]:
    """The users with something to predict, and their rows in the input.

    With `new_only` the truth is what a user took for the first time, and what the user had is not ranked. A target
    that was not in the catalogue at the cut cannot be recommended and is left out.
    Raises InputContractError where no user is left.
    """
    wanted = eligible[targets.indices.numpy()]
    rows = targets.entry_rows().numpy()
    items = targets.indices.numpy().astype(np.int64)
    if new_only:
        had = seen.entry_rows().numpy() * len(eligible) + seen.indices.numpy()
        wanted = wanted & ~np.isin(rows * len(eligible) + items, had)
    rows, items = rows[wanted], items[wanted]
    users = np.unique(rows)
    if not users.size:
        raise InputContractError(
            f"no user with a past has a target of kind '{'new' if new_only else 'all'}' after the cut",
            remedy="give a longer log, or raise features.holdout_days",
        )
    indptr = np.searchsorted(rows, np.append(users, len(histories))).astype(np.int64)
    offsets = histories.offsets
    cases = Cases(
        histories.select(offsets[users], offsets[users + 1]),
        Truth(indptr, items),
        rows_of(seen, users) if new_only else None,
        eligible,
    )
    return cases, users


def rank(cases: Cases, scores: Scores, known: Known, cutoffs: list[int], tile_items: int) -> Outcome:
    """Every metric of one scorer over all eligible items; `known` tells which of them are a novelty."""
    lists = best_items(cases, scores, max(cutoffs), tile_items)
    areas = [_auc(cases, scores, *users) for users in _batches(len(lists), _DENSE_SCORES // len(cases.eligible))]
    per_user = ranking_metrics(lists, cases.truth, cutoffs) | {"auc": np.concatenate(areas)}
    per_user |= novelty_metrics(lists, known, cutoffs)
    n_items = int(cases.eligible.sum())
    return Outcome(lists, per_user, {f"coverage@{k}": catalogue_coverage(lists[:, :k], n_items) for k in cutoffs})


def best_items(cases: Cases, scores: Scores, longest: int, tile_items: int) -> NDArray[np.int64]:
    """(N, longest) item_idx, the best first, -1 where a list is shorter."""
    lists = np.full((len(cases.histories), longest), ABSENT, dtype=np.int64)
    eligible = torch.from_numpy(cases.eligible)
    for low, high in _batches(len(lists)):
        best = top_k(
            scores.users[low:high],
            scores.items,
            longest,
            excluded=None if cases.excluded is None else cases.excluded.rows(low, high),
            additions=None if scores.additions is None else scores.additions.rows(low, high),
            eligible=eligible,
            tile_items=tile_items,
        )
        row = np.repeat(np.arange(high - low), best.indptr.diff().numpy())
        lists[low + row, np.arange(len(row)) - best.indptr.numpy()[row]] = best.item_idx.numpy()
    return lists


def _batches(users: int, limit: int = _BATCH_USERS) -> Iterator[tuple[int, int]]:
    """Ranges of users, none larger than the limit where that is not 0."""
    size = min(_BATCH_USERS, max(1, limit))
    return ((low, min(low + size, users)) for low in range(0, users, size))


def _auc(cases: Cases, scores: Scores, low: int, high: int) -> FloatArray:
    """(B,) AUC of the users low..high-1, from the score of every item that they may be shown."""
    dense = torch.addmm(scores.items.bias, scores.users[low:high], scores.items.vectors.t())
    added = None if scores.additions is None else scores.additions.rows(low, high)
    excluded = None if cases.excluded is None else cases.excluded.rows(low, high)
    if added is not None and added.values is not None:
        dense.index_put_((added.entry_rows(), added.indices.long()), added.values, accumulate=True)
    dense[:, ~torch.from_numpy(cases.eligible)] = -torch.inf
    if excluded is not None:
        dense[excluded.entry_rows(), excluded.indices.long()] = -torch.inf
    begin = cases.truth.indptr[low : high + 1]
    items = cases.truth.indices[begin[0] : begin[-1]]
    above, tied = np.empty(len(items), dtype=np.int64), np.empty(len(items), dtype=np.int64)
    candidates = torch.isfinite(dense).sum(1).numpy()
    ascending = np.sort(dense.numpy(), axis=1)
    for user in range(high - low):
        mine = slice(begin[user] - begin[0], begin[user + 1] - begin[0])
        value = dense[user].numpy()[items[mine]]
        left, right = np.searchsorted(ascending[user], value), np.searchsorted(ascending[user], value, side="right")
        above[mine], tied[mine] = ascending.shape[1] - right, right - left - 1
    return auc(above, tied, candidates, Truth(begin - begin[0], items))


def rows_of(csr: Csr, rows: NDArray[np.int64]) -> Csr:
    """Some rows of a Csr without values, in the order given."""
    indptr = csr.indptr.numpy()
    size = np.diff(indptr)[rows]
    bounds = np.concatenate([[0], size.cumsum()])
    at = np.arange(bounds[-1]) + np.repeat(indptr[rows] - bounds[:-1], size)
    return Csr(torch.from_numpy(bounds), csr.indices[torch.from_numpy(at)])
