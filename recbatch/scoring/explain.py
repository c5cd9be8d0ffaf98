"""Which past behaviour a recommendation rests on.

The evidence of behaviour j (item h_j, position p_j from the end) for a recommended item i is

    E(j, i) = lam * [log(1 + c / eps) - log(1 + c_without_j / eps)]
              + kappa(p_j) s_j + sum over k before j of (kappa(p_k) - kappa(p_k - 1)) s_k,   s_k = v_{h_k} . v_i

    c_without_j = c - c_j + (1 / decay - 1) * (sum of the c_k of the behaviours before j)

The first term is exactly what the score loses when the behaviour goes: its share c_j of the co-occurrence c(u, i), less
what those before it gain by being one place nearer to the end. The others estimate what the network loses, as if a
user's vector were the sum of kappa(p_k) v_{h_k}: kappa is measured on the model, as the least-squares fit of that loss
to what the scores of all items i lose when behaviours are taken out of histories, one at a time.
`because_item_id` is the item of the behaviour with the most evidence; of equals, the latest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
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
_RIDGE = 1e-3  # of the mean diagonal of the normal equations of kappa
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
    explained, total = torch.zeros(length), torch.zeros(length, length)
    for position in range(int((stop - start).max(initial=0))):
        users = np.flatnonzero(stop - start > max(position, 1))
        if not len(users):
            break
        out = stop[users] - 1 - position
        without = sequences.without(start[users], stop[users], out)
        change = whole[torch.from_numpy(users)] - user_vectors(model, item_vectors, without)
        behaviour = torch.from_numpy(_newest_first(sequences.select(start[users], stop[users]), length))
        parts = _parts(item_vectors, behaviour, position)
        explained += torch.einsum("upd,de,ue->p", parts, gram, change)
        total += torch.einsum("upd,de,uqe->pq", parts, gram, parts)
    # A position that nobody in the sample has gets 0.
    ridge = _RIDGE * float(total.diagonal().mean()) + torch.finfo(torch.float32).tiny
    kappa = torch.linalg.solve(total + ridge * torch.eye(length), explained)
    typical = float(torch.linalg.vector_norm(whole, dim=1).mean()) if len(whole) else 1.0
    return Measured(tuple(kappa.tolist()), typical or 1.0)


def _parts(item_vectors: Tensor, behaviour: Tensor, position: int) -> Tensor:
    """(U, L, d): what kappa (L,) is multiplied by in what U users lose when the behaviour at `position` goes.

    behaviour: (U, L) item_idx, the latest first, -1 for none. Those before the one that goes move one place up.
    """
    vectors = F.embedding(behaviour.clamp(min=0), item_vectors) * (behaviour >= 0)[..., None]
    parts = torch.zeros_like(vectors)
    parts[:, position] = vectors[:, position]
    parts[:, position + 1 :] += vectors[:, position + 1 :]
    parts[:, position:-1] -= vectors[:, position + 1 :]
    return parts


def _losses(kappa: Tensor) -> Tensor:
    """(L, L): [p, k] is the weight of v_{h_k} in what the network loses without the behaviour at p."""
    moved = torch.diff(kappa, prepend=torch.zeros(1))  # kappa(k) - kappa(k - 1)
    return torch.triu(moved.expand(len(kappa), -1), diagonal=1) + torch.diag(kappa)


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
    """(N, context): what the network loses of an entry's score without each behaviour of its context."""
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
    past = torch.from_numpy(behaviour[:, : len(kappa)])  # (B, context)
    losses = _losses(kappa)
    products = np.empty((*lists.shape, past.shape[1]), np.float32)  # (B, K, context)
    for start in range(0, len(lists), _USERS_IN_CACHE):
        users = slice(start, start + _USERS_IN_CACHE)
        vectors = _rows(item_vectors, past[users].clamp(min=0)).mul_((past[users] >= 0)[..., None])
        weighted = torch.matmul(losses, vectors).transpose(1, 2)
        torch.bmm(_rows(item_vectors, lists[users]), weighted, out=torch.from_numpy(products[users]))
    return products.reshape(-1, products.shape[2]) if len(row) == lists.numel() else products[row, rank]
