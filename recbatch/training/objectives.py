"""The losses by name, as functions of a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.config.learning import LossName, TrainingSection
from recbatch.model.items import ItemFeatures
from recbatch.model.losses import binary_cross_entropy, full_softmax, sampled_softmax, squared_error
from recbatch.model.recommender import Recommender
from recbatch.training.batches import Batch

_TIMED_ITEMS = 20_000  # of more, as many are timed: the time grows with their number
_NEGATIVE_POWER = 0.75  # negatives are drawn by (count + 1) to this power

Objective = Callable[[Recommender, Batch], Tensor]


def make_objective(
    name: LossName,
    config: TrainingSection,
    features: ItemFeatures,
    counts: NDArray[np.int64],
    generator: np.random.Generator,
) -> Objective:
    """The mean loss of a batch, to be differentiated. counts (I,): behaviours an item, by which negatives are drawn."""
    everything = torch.arange(len(features))

    def full(model: Recommender, batch: Batch) -> Tensor:
        vectors, bias = model.items(features, everything)
        states = batch.states(model, batch.histories, vectors)
        return full_softmax(states, vectors, bias, batch.targets, batch.weights, config.label_smoothing)

    if name == "full":
        return full
    negatives = _NegativeSampler(counts, config.negatives, generator)

    def against_some(model: Recommender, batch: Batch) -> Tensor:
        drawn, log_q = negatives.draw()
        at_hand = torch.unique(torch.cat([batch.histories.item_idx.flatten(), batch.targets, drawn]))
        vectors, bias = model.items(features, at_hand)
        local = replace(batch.histories, item_idx=torch.searchsorted(at_hand, batch.histories.item_idx))
        states = batch.states(model, local, vectors)
        targets, drawn = torch.searchsorted(at_hand, batch.targets), torch.searchsorted(at_hand, drawn)
        if name == "sampled":
            return sampled_softmax(states, vectors, bias, targets, drawn, log_q[at_hand], batch.weights)
        loss = binary_cross_entropy if name == "bce" else squared_error
        return loss(states, vectors, bias, targets, drawn, batch.weights)

    return against_some


def choose_loss(config: TrainingSection, positions: int, n_items: int, dim: int) -> LossName:
    """`auto`: the full softmax where an epoch of it fits the time set, by the time of 256 positions on this machine."""
    if config.loss != "auto":
        return config.loss
    sample = min(n_items, _TIMED_ITEMS)
    users, items, targets = torch.ones(256, dim), torch.ones(sample, dim), torch.zeros(256, dtype=torch.int64)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        full_softmax(users, items, torch.zeros(sample), targets)
        seconds.append(time.perf_counter() - began)
    estimate = min(seconds) * positions / len(users) * n_items / sample
    return "full" if estimate <= config.full_epoch_seconds else "sampled"


class _NegativeSampler:
    """Draws items by popularity, damped, with replacement."""

    def __init__(self, counts: NDArray[np.int64], size: int, generator: np.random.Generator) -> None:
        share = (counts + 1.0) ** _NEGATIVE_POWER
        self._cumulative = np.cumsum(share / share.sum())
        self._log_q = torch.from_numpy(np.log(share / share.sum()).astype(np.float32))
        self._size, self._generator = size, generator

    def draw(self) -> tuple[Tensor, Tensor]:
        """Items (S,) int64, and the log of every item's chance (I,)."""
        drawn = np.searchsorted(self._cumulative, self._generator.random(self._size), side="right")
        return torch.from_numpy(drawn.clip(max=len(self._cumulative) - 1)), self._log_q
