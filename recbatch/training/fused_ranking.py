"""Ranks for many weights of co-occurrence what one network scores, without a walk over all items for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.compilation import compiled
from recbatch.model.fusion import Fusion, Popularity
from recbatch.model.neighbours import Neighbours
from recbatch.ranking.csr import Csr
from recbatch.ranking.exact import ItemMatrix
from recbatch.training.validation import Validation

_DENSE_SCORES = 1 << 24  # at most so many scores of a block of users by all items are held


class NetworkRanking:
    """What the users of a window get by one network under any weights of bias and trend, without co-occurrence.

    All items are ranked once for each pair of weights that is asked for.
    """

    def __init__(self, validation: Validation, users: Tensor, items: ItemMatrix, popularity: Popularity) -> None:
        self._validation, self._users, self._items, self._popularity = validation, users, items, popularity
        self._best: dict[tuple[float, float], tuple[NDArray[np.int32], NDArray[np.float32]]] = {}
        self._ndcg: dict[tuple[float, float], NDArray[np.float64]] = {}

    def bias(self, fusion: Fusion) -> Tensor:
        """(items,) what is added to u . v."""
        return fusion.bias(self._items.bias, self._popularity)

    def best(self, fusion: Fusion) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """(N, 10) item_idx, the best first, -1 where a list is shorter, and their scores."""
        weights = fusion.network_bias, fusion.trend
        if weights not in self._best:
            items = ItemMatrix(self._items.vectors, self.bias(fusion), torch.from_numpy(self._items.tie_rank))
            self._best[weights] = self._validation.best(self._users, items)
        return self._best[weights]

    def ndcg(self, fusion: Fusion) -> NDArray[np.float64]:
        """(N,) NDCG@10 of the users."""
        weights = fusion.network_bias, fusion.trend
        if weights not in self._ndcg:
            self._ndcg[weights] = self._validation.ndcg_of_lists(self.best(fusion)[0])
        return self._ndcg[weights]


class FusedRanking:
    """What the users of a window get by one network under any weights of the fused score.

    Co-occurrence only ever raises a score. Whatever is among a user's best with it is therefore among the best without
    it, or is raised itself: for weights of co-occurrence no more than what it raises is scored.
    scale: the median of c(u, i).
    """

    def __init__(
        self,
        validation: Validation,
        users: Tensor,
        items: ItemMatrix,
        popularity: Popularity,
        neighbours: Neighbours,
        behaviours: int,
        decay: float,
    ) -> None:
        self._validation, self._tie_rank = validation, items.tie_rank
        self._plain = NetworkRanking(validation, users, items, popularity)
        self._indptr, self._raised, self._sums = neighbours.cooccurrence(validation.past, behaviours, decay)
        self._products = _products(users, items, self._indptr, self._raised, validation.excluded)
        self._ndcg: dict[Fusion, NDArray[np.float64]] = {}
        self.scale = float(np.median(self._sums)) if len(self._sums) else 1.0

    def ndcg(self, fusion: Fusion) -> NDArray[np.float64]:
        """(N,) NDCG@10 of the users. The fusion's behaviours and decay are this ranking's; lam is not negative."""
        if not fusion.lam:
            return self._plain.ndcg(fusion)
        if fusion not in self._ndcg:
            self._ndcg[fusion] = self._validation.ndcg_of_lists(self.lists(fusion))
        return self._ndcg[fusion]

    def lists(self, fusion: Fusion) -> NDArray[np.int32]:
        """(N, 10) item_idx, the best first, -1 where a list is shorter."""
        listed, scores = self._plain.best(fusion)
        if not fusion.lam:
            return listed
        raised: NDArray[np.int32] = _raise(
            self._indptr,
            self._raised,
            self._products,
            self._sums,
            self._plain.bias(fusion).numpy(),
            self._tie_rank,
            listed,
            scores,
            fusion.lam,
            fusion.eps,
        )
        return raised


def _products(
    users: Tensor, items: ItemMatrix, indptr: NDArray[np.int64], raised: NDArray[np.int32], excluded: Csr | None
) -> NDArray[np.float32]:
    """(entries,): u . v_i of every item that a user's past raises, minus infinity where it is not to be listed."""
    products = np.empty(len(raised), np.float32)
    block = max(1, _DENSE_SCORES // max(1, len(items)))
    for low in range(0, len(users), block):
        high = min(low + block, len(users))
        scores = users[low:high] @ items.vectors.t()
        if excluded is not None:
            left_out = excluded.rows(low, high)
            scores[left_out.entry_rows(), left_out.indices.long()] = -torch.inf
        entries = slice(indptr[low], indptr[high])
        row = np.repeat(np.arange(high - low), np.diff(indptr[low : high + 1]))
        products[entries] = scores.numpy()[row, raised[entries]]
    return products


@compiled
def _insert(best: Any, value: Any, found: int, item: Any, score: Any, tie_rank: Any) -> int:
    """Put an item where it belongs among the first `found` of best and value (K,) each; how many there are then."""
    place = found
    while place and (
        value[place - 1] < score or (value[place - 1] == score and tie_rank[best[place - 1]] > tie_rank[item])
    ):
        place -= 1
    if place == len(best):
        return found
    last = min(found, len(best) - 1)
    for moved in range(last, place, -1):
        best[moved], value[moved] = best[moved - 1], value[moved - 1]
    best[place], value[place] = item, score
    return last + 1


@compiled
def _raise(
    indptr: Any,
    raised: Any,
    products: Any,
    sums: Any,
    bias: Any,
    tie_rank: Any,
    listed: Any,
    scores: Any,
    lam: float,
    eps: float,
) -> Any:
    """(N, K) int32: the lists `listed`, with their scores, after lam log(1 + c / eps) is added where c is not zero.

    indptr, raised, products, sums: of every user the items with c > 0, ascending, u . v and c. An item of equal score
    is placed by its tie rank. A row that is not full ends with -1.
    """
    n_users, k = listed.shape
    best, value = np.full((n_users, k), -1, np.int32), np.empty(k, np.float32)
    for user in range(n_users):
        row = raised[indptr[user] : indptr[user + 1]]
        found = 0
        for rank in range(k):
            item = listed[user, rank]
            if item < 0:
                break
            at = np.searchsorted(row, item)
            if at == len(row) or row[at] != item:
                best[user, found], value[found] = item, scores[user, rank]
                found += 1
        # The k-th score cannot fall by what is added to others.
        floor = scores[user, k - 1] if listed[user, k - 1] >= 0 else -np.inf
        for at in range(indptr[user], indptr[user + 1]):
            item = raised[at]
            added = np.float32(lam * np.log1p(sums[at] / eps))
            score = np.float32(np.float64(products[at]) + bias[item] + added)
            if score < floor or score == -np.inf:
                continue
            found = _insert(best[user], value, found, item, score, tie_rank)
    return best
