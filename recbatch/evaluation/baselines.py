"""The scorers a model has to beat, in the form that the kernel takes: user vectors, items, sparse additions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recbatch.model.fusion import Fusion
from recbatch.model.histories import Sequences
from recbatch.model.neighbours import Neighbours
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import ItemMatrix


@dataclass(frozen=True)
class Scores:
    """score(u, i) = users[u] . items.vectors[i] + items.bias[i] + additions(u, i) for N users and all items."""

    users: Tensor
    items: ItemMatrix
    additions: Csr | None = None


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
