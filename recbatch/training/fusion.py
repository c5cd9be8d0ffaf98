"""Fits the weight of co-occurrence in the fused score on the validation window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from recbatch.config.sections import ModelSection
from recbatch.model.items import ItemFeatures
from recbatch.model.neighbours import Fusion, Neighbours
from recbatch.model.recommender import Recommender
from recbatch.ranking.csr import Csr
from recbatch.training.validation import Validation

# eps in multiples of the median co-occurrence; lam is searched in doubling steps, then between its neighbours.
_EPS = (0.1, 1.0, 10.0)
_LAM = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
_FINER = (2**-0.5, 2**0.5)


@dataclass(frozen=True)
class FusionResult:
    """The best fusion (lam 0 where co-occurrence does not help), its NDCG@10, and that of the bare network."""

    fusion: Fusion
    ndcg: float
    bare_ndcg: float


def fit_fusion(
    model: Recommender, features: ItemFeatures, neighbours: Neighbours, validation: Validation, config: ModelSection
) -> FusionResult:
    """Maximise NDCG@10 of u . v + b + lam log(1 + c / eps) over lam and eps.

    model and neighbours must be made of what lies before the validation window.
    """
    users, items = validation.encode(model, features)
    indptr, item, total = neighbours.cooccurrence(validation.past, config.fusion_behaviours, config.fusion_decay)
    indptr_, item_ = torch.from_numpy(indptr), torch.from_numpy(item)
    bare = validation.ndcg(users, items)
    scale = float(np.median(total)) if len(total) else 1.0
    tried = {(0.0, scale): bare}

    def attempt(lam: float, eps: float) -> None:
        values = torch.from_numpy((lam * np.log1p(total / eps)).astype(np.float32))
        tried[lam, eps] = validation.ndcg(users, items, Csr(indptr_, item_, values))

    def best() -> tuple[float, float]:
        return max(tried, key=lambda point: (tried[point], -point[0]))

    if len(total):
        for eps in _EPS:
            for lam in _LAM:
                attempt(lam, eps * scale)
        lam, eps = best()
        for factor in _FINER:
            attempt(lam * factor, eps)
    lam, eps = best()
    return FusionResult(Fusion(lam, eps, config.fusion_behaviours, config.fusion_decay), tried[lam, eps], bare)
