"""Which past behaviour a recommendation rests on.

The evidence of behaviour j (item h_j, position p_j from the end) for a recommended item i is

    E(j, i) = lam * [log(1 + c / eps) - log(1 + (c - c_j) / eps)]  +  kappa(p_j) * (v_{h_j} . v_i)

The first term is exactly what the score loses when the behaviour's share c_j of the co-occurrence c(u, i) goes. The
second estimates what the network loses: kappa(p) is measured on the model, as the least-squares fit of
kappa (v_h . v_i) to what the scores of all items i lose when the behaviour at p is taken out of a history.
`because_item_id` is the item of the behaviour with the most evidence; of equals, the latest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.model.fusion import BARE, Fusion
from recbatch.model.histories import Sequences
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender, user_vectors
from recbatch.ranking.topk import TopK

BY_COOCCURRENCE = "often_follows"
BY_SIMILARITY = "similar_to_history"
_SAMPLED_USERS = 64
_USERS_IN_CACHE = 16  # whose lists' and behaviours' vectors, gathered, stay there


@dataclass(frozen=True)
class Evidence:
    """For N list entries: the item of the behaviour, and which of the two terms was the larger."""

    because: NDArray[np.int64]
    reason: pa.Array


class Measured(NamedTuple):
    """kappa by position from the end, and the mean norm of a user vector."""

    kappa: tuple[float, ...]
    typical_norm: float


def measure(model: Recommender, item_vectors: Tensor, sequences: Sequences) -> Measured:
    """What the artifact of a model says of its users, over the first of `sequences`."""
    length = model.config.context_length
    start, stop = sequences.last(length)
    start, stop = start[:_SAMPLED_USERS], stop[:_SAMPLED_USERS]
    whole = user_vectors(model, item_vectors, sequences.select(start, stop))
    gram = item_vectors.t() @ item_vectors
    explained, total = torch.zeros(length), torch.zeros(length)
    for position in range(int((stop - start).max(initial=0))):
        users = np.flatnonzero(stop - start > max(position, 1))
        if not len(users):
            break
        out = stop[users] - 1 - position
        without = sequences.without(start[users], stop[users], out)
        removed = item_vectors[torch.from_numpy(sequences.columns["item_idx"][out].astype(np.int64))]
        change = whole[torch.from_numpy(users)] - user_vectors(model, item_vectors, without)
        explained[position] = (change @ gram * removed).sum()
        total[position] = (removed @ gram * removed).sum()
    kappa = explained / total.clamp(min=torch.finfo(torch.float32).tiny)
    typical = float(torch.linalg.vector_norm(whole, dim=1).mean()) if len(whole) else 1.0
    return Measured(tuple(kappa.tolist()), typical or 1.0)


def explain(
    item_vectors: Tensor, kappa: Tensor, neighbours: Neighbours, fusion: Fusion | None, histories: Sequences, best: TopK
) -> Evidence:
    """The evidence for every entry of the lists of B users, in the order of `best`."""
    length = len(kappa) if fusion is None else max(len(kappa), fusion.behaviours)
    behaviour = _newest_first(histories, length)
    similarity = _similarity(item_vectors, kappa, behaviour, best)
    chosen, by_count = neighbours.evidence(behaviour, best, similarity, fusion or BARE)
    row = np.repeat(np.arange(len(histories)), np.diff(best.indptr.numpy()))
    because = np.where(chosen >= 0, behaviour[row, np.maximum(chosen, 0)], -1)
    names = pa.array([BY_SIMILARITY, BY_COOCCURRENCE], pa.string())
    return Evidence(because, names.take(pa.array(by_count.astype(np.int8))))


def _newest_first(histories: Sequences, length: int) -> NDArray[np.int64]:
    """(B, length) item_idx of the last behaviours, the latest first, -1 where a user has fewer."""
    start, stop = histories.last(length)
    at = stop[:, None] - 1 - np.arange(length)
    real = at >= start[:, None]
    behaviour = np.full(real.shape, -1, dtype=np.int64)
    behaviour[real] = histories.columns["item_idx"][at[real]]
    return behaviour


def _rows(vectors: Tensor, at: Tensor) -> Tensor:
    """vectors[at], several times as fast."""
    return vectors.index_select(0, at.flatten()).view(*at.shape, -1)


def _similarity(item_vectors: Tensor, kappa: Tensor, behaviour: NDArray[np.int64], best: TopK) -> NDArray[np.float32]:
    """(N, context): kappa(p) * v_h . v_i for every entry and behaviour of the network's context."""
    bounds = best.indptr.numpy()
    counts = np.diff(bounds)
    row = np.repeat(np.arange(len(behaviour)), counts)
    rank = np.arange(len(row)) - bounds[row]
    longest = int(counts.max(initial=0))
    if len(row) == len(behaviour) * longest:  # as nearly always: every list is full
        lists = best.item_idx.view(-1, longest)
    else:
        lists = torch.zeros(len(behaviour), longest, dtype=torch.int32)
        lists[torch.from_numpy(row), torch.from_numpy(rank)] = best.item_idx
    past = torch.from_numpy(np.maximum(behaviour[:, : len(kappa)], 0))  # (B, context)
    products = np.empty((*lists.shape, past.shape[1]), np.float32)  # (B, K, context)
    for start in range(0, len(lists), _USERS_IN_CACHE):
        users = slice(start, start + _USERS_IN_CACHE)
        weighted = _rows(item_vectors, past[users]).mul_(kappa[:, None]).transpose(1, 2)
        torch.bmm(_rows(item_vectors, lists[users]), weighted, out=torch.from_numpy(products[users]))
    return products.reshape(-1, products.shape[2]) if len(row) == lists.numel() else products[row, rank]
