"""Fits the weights of the fused score on the validation window."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recbatch.config.learning import ModelSection
from recbatch.model.fusion import Fusion, Popularity
from recbatch.model.items import ItemFeatures
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender
from recbatch.ranking.topk import ItemMatrix
from recbatch.training.fused_ranking import FusedRanking, NetworkRanking
from recbatch.training.validation import Validation

# eps in multiples of the median co-occurrence; the weights are tried one after the other, the others held.
_EPS = (0.1, 1.0, 10.0)
_LAM = (0.25, 0.5, 1.0, 2.0, 4.0)
_FINER = ((2 / 3, 1 / 3), (2 / 3, 1.0), (1.5, 1.0), (1.5, 3.0))  # lam and eps as multiples of the best of those
_TREND = (0.0, 0.5, 1.0, 2.0, 4.0)
_NETWORK_BIAS = (0.0, 1.0)
_ROUNDS = 2


@dataclass(frozen=True, eq=False)
class FusionResult:
    """The best fusion, the NDCG@10 that it has for every user (N,), and that of the bare network."""

    fusion: Fusion
    of_users: NDArray[np.float64]
    bare_of_users: NDArray[np.float64]

    @property
    def ndcg(self) -> float:
        """The mean over users."""
        return float(self.of_users.mean())

    @property
    def bare_ndcg(self) -> float:
        """The mean over users."""
        return float(self.bare_of_users.mean())


def exceeds_error(gain: NDArray[np.float64]) -> bool:
    """Whether the mean of paired differences (N,) is larger than its standard error, std / sqrt(N)."""
    return bool(gain.mean() > gain.std() / len(gain) ** 0.5)


def fit_bias(
    validation: Validation, users: Tensor, items: ItemMatrix, popularity: Popularity, start: Fusion
) -> tuple[Fusion, float]:
    """The weights of bias and trend, chosen as by `fit_fusion` but without co-occurrence, and their NDCG@10.

    What an epoch is judged by: a network is worth what it adds to the score it is shipped in.
    """
    ranking = NetworkRanking(validation, users, items, popularity)
    best = _better(start, _biases(start), ranking.ndcg)
    return best, float(ranking.ndcg(best).mean())


def _biases(start: Fusion) -> list[Fusion]:
    return [start, *(replace(start, network_bias=b, trend=t) for b in _NETWORK_BIAS for t in _TREND)]


def _better(current: Fusion, others: Iterable[Fusion], ndcg: Callable[[Fusion], NDArray[np.float64]]) -> Fusion:
    """The best of the others where it exceeds the current one by more than an error."""
    other = max(others, key=lambda fusion: ndcg(fusion).mean())
    return other if exceeds_error(ndcg(other) - ndcg(current)) else current


def fit_fusion(
    model: Recommender,
    features: ItemFeatures,
    neighbours: Neighbours,
    popularity: Popularity,
    validation: Validation,
    config: ModelSection,
) -> FusionResult:
    """Maximise NDCG@10 of the fused score over its weights.

    Weights give way to others only where these are better by more than one standard error of the paired difference
    (Breiman et al. 1984, section 3.4.3): a window is a sample, and the simplest score is tried first.
    model, neighbours and popularity must be made of what lies before the validation window.
    """
    users, items = validation.encode(model, features)
    ranking = FusedRanking(
        validation, users, items, popularity, neighbours, config.fusion_behaviours, config.fusion_decay
    )
    best = Fusion(0.0, ranking.scale, config.fusion_behaviours, config.fusion_decay)
    bare = ranking.ndcg(best)
    for _ in range(_ROUNDS):
        best = _better(best, _biases(best), ranking.ndcg)
        sparse = [replace(best, lam=lam, eps=eps * ranking.scale) for eps in _EPS for lam in _LAM]
        best = _better(best, [replace(best, lam=0.0), *sparse], ranking.ndcg)
    if best.lam:
        finer = [replace(best, lam=best.lam * lam, eps=best.eps * eps) for lam, eps in _FINER]
        best = _better(best, finer, ranking.ndcg)
    return FusionResult(best, ranking.ndcg(best), bare)
