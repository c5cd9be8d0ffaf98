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
from recbatch.ranking.topk import Catalogue, ItemMatrix, top_k_of
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
                f"no user has behaviours both before {window.start} and{' new ones' if new_only else ''} in "
                f"[{window.start}, {window.end})",
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
        """The mean NDCG@10 of the users' best items."""
        return float(self.ndcg_of_lists(self.best(users, items, additions)[0]).mean())

    def best(
        self, users: Tensor, items: ItemMatrix, additions: Csr | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """(N, 10) item_idx, the best first, and their scores; -1 and minus infinity where a list is shorter."""
        listed = np.full((len(users), CUTOFF), -1, np.int32)
        scores = np.full((len(users), CUTOFF), -np.inf, np.float32)
        typical = float(torch.linalg.vector_norm(users, dim=1).nan_to_num(1.0, 1.0).mean()) or 1.0
        catalogue = Catalogue.create(items, typical_norm=typical, tile_items=_TILE_ITEMS)
        for low in range(0, len(users), _BATCH_USERS):
            high = min(low + _BATCH_USERS, len(users))
            found = top_k_of(
                users[low:high],
                catalogue,
                CUTOFF,
                excluded=None if self.excluded is None else self.excluded.rows(low, high),
                additions=None if additions is None else additions.rows(low, high),
            )
            full = np.arange(CUTOFF) < found.indptr.diff().numpy()[:, None]
            listed[low:high][full], scores[low:high][full] = found.item_idx.numpy(), found.score.numpy()
        return listed, scores

    def ndcg_of_lists(self, listed: NDArray[np.int32]) -> NDArray[np.float64]:
        """(N,) NDCG@10 of lists (N, 10), -1 where one is shorter: gain 1 for each item taken, discount log2(rank + 1)
        (Järvelin & Kekäläinen 2002).
        """
        base = int(max(listed.max(initial=0), int(self.targets.indices.max()))) + 1
        wanted = self.targets.entry_rows().numpy() * base + self.targets.indices.numpy()
        hit = np.isin(np.arange(len(listed))[:, None] * base + listed, wanted) & (listed >= 0)
        discount = 1.0 / np.log2(np.arange(2, CUTOFF + 2))
        ideal = discount.cumsum()[self.targets.indptr.diff().clamp(max=CUTOFF).numpy() - 1]
        ndcg: NDArray[np.float64] = hit @ discount / ideal
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
