"""Models and the baselines they have to beat, as the kernel takes them: user vectors, items, sparse additions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recbatch.model.artifact import Artifact
from recbatch.model.fusion import Fusion, Popularity
from recbatch.model.histories import Sequences
from recbatch.model.items import ItemFeatures
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import user_vectors
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import ItemMatrix


@dataclass(frozen=True)
class Scores:
    """score(u, i) = users[u] . items.vectors[i] + items.bias[i] + additions(u, i) for N users and all items."""

    users: Tensor
    items: ItemMatrix
    additions: Csr | None = None


def network(loaded: Artifact, features: ItemFeatures, histories: Sequences, tie_rank: Tensor) -> Scores:
    """The network of an artifact alone, for the users of `histories`, whose amounts it normalises by itself."""
    vectors, bias = loaded.model.item_vectors(features)
    users = user_vectors(loaded.model, vectors, histories.normalised(*loaded.amounts))
    return Scores(users, ItemMatrix(vectors, bias, tie_rank))


def fused(loaded: Artifact, bare: Scores, popularity: Popularity, histories: Sequences, tie_rank: Tensor) -> Scores:
    """The score as an artifact is used: `network` with what is fused into it, if anything is."""
    if loaded.fusion is None:
        return bare
    items = ItemMatrix(bare.items.vectors, loaded.fusion.bias(bare.items.bias, popularity), tie_rank)
    return Scores(bare.users, items, loaded.neighbours.additions(histories, loaded.fusion))


def popularity(counts: Tensor, n_users: int, tie_rank: Tensor) -> Scores:
    """The same ranking for everyone, by `counts` (I,)."""
    nothing = torch.zeros(len(counts), 1)
    return Scores(torch.zeros(n_users, 1), ItemMatrix(nothing, counts.float(), tie_rank))


def cooccurrence(
    neighbours: Neighbours, histories: Sequences, behaviours: int, decay: float, tie_rank: Tensor
) -> Scores:
    """What the last `behaviours` behaviours of every user of `histories` lead to, items without a neighbour last."""
    n_items = len(tie_rank)
    nothing = torch.zeros(n_items, 1)
    additions = neighbours.additions(histories, Fusion(lam=1.0, eps=1.0, behaviours=behaviours, decay=decay))
    return Scores(torch.zeros(len(histories), 1), ItemMatrix(nothing, torch.zeros(n_items), tie_rank), additions)
