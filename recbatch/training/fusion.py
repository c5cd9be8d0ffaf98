"""Fits the weights of the fused score on the validation window."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recbatch.config.learning import ModelSection
from recbatch.model.fusion import Fusion, Popularity
from recbatch.model.items import ItemFeatures
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import ItemMatrix
from recbatch.training.validation import Validation

# eps in multiples of the median co-occurrence; the weights are tried one after the other, the others held.
_EPS = (0.1, 1.0, 10.0)
_LAM = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
_TREND = (0.0, 0.5, 1.0, 2.0, 4.0)
_NETWORK_BIAS = (0.0, 1.0)
_ROUNDS = 2


@dataclass(frozen=True)
class FusionResult:
    """The best fusion, its NDCG@10, and that of the bare network."""

    fusion: Fusion
    ndcg: float
    bare_ndcg: float


def fit_bias(
    validation: Validation, users: Tensor, items: ItemMatrix, popularity: Popularity, start: Fusion
) -> tuple[Fusion, float]:
    """The weights of bias and trend with the best NDCG@10 without co-occurrence, and that figure.

    What an epoch is judged by: a network is worth what it adds to the score it is shipped in.
    """
    tried = {}
    for fusion in _biases(start):
        fused = ItemMatrix(items.vectors, fusion.bias(items.bias, popularity), torch.from_numpy(items.tie_rank))
        tried[fusion] = validation.ndcg(users, fused)
    best = max(tried, key=lambda fusion: tried[fusion])
    return best, tried[best]


def _biases(start: Fusion) -> list[Fusion]:
    return [start, *(replace(start, network_bias=b, trend=t) for b in _NETWORK_BIAS for t in _TREND)]


def fit_fusion(
    model: Recommender,
    features: ItemFeatures,
    neighbours: Neighbours,
    popularity: Popularity,
    validation: Validation,
    config: ModelSection,
) -> FusionResult:
    """Maximise NDCG@10 of the fused score over its weights; of equals the one tried first, which is the simpler.

    model, neighbours and popularity must be made of what lies before the validation window.
    """
    users, items = validation.encode(model, features)
    indptr, item, total = neighbours.cooccurrence(validation.past, config.fusion_behaviours, config.fusion_decay)
    indptr_, item_ = torch.from_numpy(indptr), torch.from_numpy(item)
    scale = float(np.median(total)) if len(total) else 1.0
    tried: dict[Fusion, float] = {}

    def ndcg(fusion: Fusion) -> float:
        if fusion not in tried:
            values = torch.from_numpy((fusion.lam * np.log1p(total / fusion.eps)).astype(np.float32))
            fused = ItemMatrix(items.vectors, fusion.bias(items.bias, popularity), torch.from_numpy(items.tie_rank))
            tried[fusion] = validation.ndcg(users, fused, Csr(indptr_, item_, values) if fusion.lam else None)
        return tried[fusion]

    best = Fusion(0.0, scale, config.fusion_behaviours, config.fusion_decay)
    bare = ndcg(best)
    for _ in range(_ROUNDS):
        best = max(_biases(best), key=ndcg)
        sparse = [replace(best, lam=lam, eps=eps * scale) for eps in _EPS for lam in _LAM]
        best = max([best, *sparse], key=ndcg)
    return FusionResult(best, tried[best], bare)
