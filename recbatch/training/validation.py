"""What the users of a validation window did next, and the NDCG of a ranking of all items against it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.errors import ModelError
from recbatch.model.histories import Sequences
from recbatch.model.items import ItemFeatures
from recbatch.model.recommender import Recommender, user_vectors
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import ItemMatrix, TopK, top_k
from recbatch.training.dataset import stop_before

CUTOFF = 10
_MAX_USERS = 20_000  # of a larger window a sample this large is ranked: the standard error is under 0.004
_DRAWN_USERS = 2 * _MAX_USERS  # before it is known who of them took anything new
_BATCH_USERS = 256
_TILE_ITEMS = 2048


@dataclass(frozen=True)
class Window:
    """Validation targets lie in [start, end) in epoch seconds; what is learnt lies before start."""

    start: int
    end: int


class Validation:
    """The users with behaviours both before and in the window: their past, and the items they took in the window.

    With `new_only` the targets are the items that the past does not hold, and the past's items are not ranked. Of more
    than 20,000 users so many are drawn.
    """

    def __init__(self, parts: list[Sequences], window: Window, new_only: bool, n_items: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        # Users are drawn before anything of theirs is copied: the files may be larger than memory.
        splits = [_split(part, window) for part in parts]
        sizes = [len(middle) for _, middle, _ in splits]
        drawn = np.sort(generator.choice(sum(sizes), min(sum(sizes), _DRAWN_USERS), replace=False))
        of_part = np.split(drawn, np.searchsorted(drawn, np.cumsum(sizes)[:-1])) if parts else []
        pasts, futures = [], []
        for part, split, some, size in zip(parts, splits, of_part, np.cumsum(sizes) - sizes, strict=True):
            begin, middle, stop = (ends[some - size] for ends in split)
            pasts.append(part.select(begin, middle))
            futures.append(part.select(middle, stop))
        past, future = Sequences.concatenate(pasts), Sequences.concatenate(futures)
        past_keys, keys = _pair_keys(past, n_items), _pair_keys(future, n_items)
        if new_only:
            keys = np.setdiff1d(keys, past_keys, assume_unique=True)
        users = np.unique(keys // max(n_items, 1))
        if not len(users):
            raise ModelError(
                f"no user has behaviours both before {window.start} and in [{window.start}, {window.end})",
                remedy="lengthen features.validation_days or give more history",
            )
        users = np.sort(generator.choice(users, min(len(users), _MAX_USERS), replace=False))
        self.past = past.select(past.offsets[users], past.offsets[users + 1])
        self.targets = _csr_of(keys, users, n_items)
        self.excluded = _csr_of(past_keys, users, n_items) if new_only else None
        # Ids must not decide between equal scores: in public data their order leaks what is popular.
        self.tie_rank = torch.from_numpy(generator.permutation(n_items))

    def __len__(self) -> int:
        return len(self.past)

    def encode(self, model: Recommender, features: ItemFeatures) -> tuple[Tensor, ItemMatrix]:
        """User vectors (N, d) from the past, and the items to rank."""
        vectors, bias = model.item_vectors(features)
        return user_vectors(model, vectors, self.past), ItemMatrix(vectors, bias, self.tie_rank)

    def ndcg(self, users: Tensor, items: ItemMatrix, additions: Csr | None = None) -> float:
        """The mean of `ndcg_of_users`."""
        return float(self.ndcg_of_users(users, items, additions).mean())

    def ndcg_of_users(self, users: Tensor, items: ItemMatrix, additions: Csr | None = None) -> NDArray[np.float64]:
        """(N,) NDCG@10, gain 1 for each item taken, discount log2(rank + 1) (Järvelin & Kekäläinen 2002)."""
        found = []
        for low in range(0, len(users), _BATCH_USERS):
            high = min(low + _BATCH_USERS, len(users))
            best = top_k(
                users[low:high],
                items,
                CUTOFF,
                excluded=None if self.excluded is None else self.excluded.rows(low, high),
                additions=None if additions is None else additions.rows(low, high),
                tile_items=_TILE_ITEMS,
            )
            found.append(_ndcg(best, self.targets.rows(low, high), len(items)))
        return np.concatenate(found)


def _ndcg(best: TopK, targets: Csr, n_items: int) -> NDArray[np.float64]:
    """(B,) NDCG@10 of ragged lists against ragged sets of targets."""
    lengths = best.indptr.diff()
    row = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    rank = torch.arange(len(row)) - best.indptr[row]  # from 0
    wanted = targets.entry_rows() * n_items + targets.indices
    hit = torch.isin(row * n_items + best.item_idx, wanted, assume_unique=True)
    discount = 1.0 / np.log2(np.arange(2, CUTOFF + 2))
    gained = np.bincount(row.numpy(), weights=discount[rank.numpy()] * hit.numpy(), minlength=len(lengths))
    ideal = discount.cumsum()[targets.indptr.diff().clamp(max=CUTOFF).numpy() - 1]
    ndcg: NDArray[np.float64] = gained / ideal
    return ndcg


def _split(part: Sequences, window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where past and targets begin and targets end, of the users that have both."""
    middle, stop = stop_before(part, window.start), stop_before(part, window.end)
    both = (middle > part.offsets[:-1]) & (stop > middle)
    return part.offsets[:-1][both], middle[both], stop[both]


def _pair_keys(sequences: Sequences, n_items: int) -> NDArray[np.int64]:
    """The distinct (user, item) pairs as user * n_items + item, ascending; items beyond n_items are left out."""
    user = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    item = sequences.columns["item_idx"].astype(np.int64)
    keys: NDArray[np.int64] = np.unique((user * n_items + item)[item < n_items])
    return keys


def _csr_of(keys: NDArray[np.int64], users: NDArray[np.int64], n_items: int) -> Csr:
    """The pairs of some users, ascending, as one row a user."""
    user, item = np.divmod(keys, n_items)
    chosen = np.isin(user, users)
    row = np.searchsorted(users, user[chosen])
    indptr = np.searchsorted(row, np.arange(len(users) + 1)).astype(np.int64)
    return Csr(torch.from_numpy(indptr), torch.from_numpy(item[chosen].astype(np.int32)))
