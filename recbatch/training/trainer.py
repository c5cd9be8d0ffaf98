"""Fits a recommender: early stopping on a validation window, and the refit on all data for the epochs found."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.config.sections import ModelSection, TrainingSection
from recbatch.errors import ModelError
from recbatch.model.fusion import BARE, Popularity
from recbatch.model.items import ItemFeatures
from recbatch.model.losses import full_softmax, sampled_softmax
from recbatch.model.recommender import Recommender, Shape
from recbatch.training.dataset import Batch, TrainingWindows, count_items, open_sequences
from recbatch.training.fusion import fit_bias
from recbatch.training.optimizers import make_optimizer
from recbatch.training.validation import Validation, Window

Loss = Literal["full", "sampled"]
_NEGATIVE_POWER = 0.75  # negatives are drawn by (count + 1) to this power


class Progress(Protocol):
    """Called after every step, with metric None, and after every validation, with its NDCG@10."""

    def __call__(self, epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None: ...


@dataclass(frozen=True)
class Inputs:
    """What is learnt from: Arrow files of `user_sequences`, the features of all items, and the event types.

    popularity: as of the start of the validation window; None judges epochs by the bare network.
    """

    files: Sequence[Path]
    features: ItemFeatures
    n_event_types: int
    popularity: Popularity | None = None


@dataclass(frozen=True)
class EpochResult:
    """Epoch (from 1), mean training loss (nats a position), validation NDCG@10, seconds."""

    epoch: int
    loss: float
    ndcg: float
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """The model of the best epoch, in evaluation mode; that epoch's number; every epoch's figures; the loss taken."""

    model: Recommender
    epochs: int
    curve: tuple[EpochResult, ...]
    loss: Loss


def fit(
    inputs: Inputs, model_config: ModelSection, config: TrainingSection, seed: int, window: Window, progress: Progress
) -> FitResult:
    """Learn from what lies before the window until its NDCG@10 has not risen for `patience` epochs.

    The same seed, data, threads and machine give the same weights, byte for byte, unless `loss: auto` is near the
    limit where its two choices meet.

    Raises:
        ModelError: nothing to learn from or to validate on, or the loss is not finite.
    """
    with threads(config.threads), torch.random.fork_rng(devices=[]):
        run = _Run(inputs, model_config, config, seed, window.start, None)
        validation = Validation(run.parts, window, config.targets == "new", len(inputs.features), seed)
        curve: list[EpochResult] = []
        best, best_ndcg = copy.deepcopy(run.model.state_dict()), -1.0
        for epoch in range(1, config.max_epochs + 1):
            began = time.monotonic()
            loss = run.epoch(epoch, progress)
            ndcg = _judge(run.model, inputs, validation)
            curve.append(EpochResult(epoch, loss, ndcg, time.monotonic() - began))
            progress(epoch, run.steps, run.steps, loss, ndcg)
            if ndcg > best_ndcg:
                best, best_ndcg = copy.deepcopy(run.model.state_dict()), ndcg
            epochs = max(curve, key=lambda result: result.ndcg).epoch
            if epoch - epochs >= config.patience:
                break
    run.model.load_state_dict(best)
    return FitResult(run.model.eval(), epochs, tuple(curve), run.loss)


def _judge(model: Recommender, inputs: Inputs, validation: Validation) -> float:
    """NDCG@10 of the network, with the best weights of bias and trend where it is shipped with them."""
    users, items = validation.encode(model, inputs.features)
    if inputs.popularity is None:
        return validation.ndcg(users, items)
    return fit_bias(validation, users, items, inputs.popularity, BARE)[1]


def refit(
    inputs: Inputs,
    model_config: ModelSection,
    config: TrainingSection,
    seed: int,
    epochs: int,
    loss: Loss,
    progress: Progress,
) -> Recommender:
    """Learn from all data for the epochs, and with the loss, that `fit` found. Raises ModelError as `fit` does."""
    with threads(config.threads), torch.random.fork_rng(devices=[]):
        run = _Run(inputs, model_config, config, seed, None, loss)
        for epoch in range(1, epochs + 1):
            run.epoch(epoch, progress)
    return run.model.eval()


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Run torch on `count` threads, None for every core this process may use, and restore what was set before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Run:
    """One training: data, model, optimiser and random state."""

    def __init__(
        self,
        inputs: Inputs,
        model_config: ModelSection,
        config: TrainingSection,
        seed: int,
        before: int | None,
        loss: Loss | None,
    ) -> None:
        torch.manual_seed(seed)
        self.config, self.features = config, inputs.features
        self.parts = open_sequences(inputs.files)
        self.windows = TrainingWindows(self.parts, before, model_config.context_length, config.targets == "new")
        self.steps = self.windows.n_batches(config.batch_rows)
        counts = count_items(self.parts, before, len(inputs.features))
        features = inputs.features
        shape = Shape(len(features), features.field_sizes, features.numbers.shape[1], inputs.n_event_types)
        self.model = Recommender(model_config, shape)
        self.model.items.trained.copy_(torch.from_numpy(counts > 0))
        self.loss: Loss = loss or _choose_loss(config, self.windows.n_positions, len(features), model_config.dim)
        self._optimizer = make_optimizer(self.model, config)
        self._generator = np.random.default_rng(seed)
        self._negatives = _NegativeSampler(counts, config.negatives, self._generator)
        self._all_items = torch.arange(len(features))

    def epoch(self, epoch: int, progress: Progress) -> float:
        """One pass over all windows; the mean loss a position."""
        self.model.train()
        total, positions = 0.0, 0
        for step, batch in enumerate(self.windows.batches(self.config.batch_rows, self._generator), start=1):
            loss = self._full(batch) if self.loss == "full" else self._sampled(batch)
            value = loss.item()
            if not np.isfinite(value):
                raise ModelError(
                    f"the training loss is {value} in step {step} of epoch {epoch}",
                    remedy=f"lower training.learning_rate (now {self.config.learning_rate})",
                )
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            n = int(batch.counted.sum())
            total, positions = total + value * n, positions + n
            progress(epoch, step, self.steps, value, None)
        return total / positions

    def _full(self, batch: Batch) -> Tensor:
        vectors, bias = self.model.items(self.features, self._all_items)
        states = self.model.encode_positions(batch.histories, vectors)
        return full_softmax(states[batch.counted], vectors, bias, batch.targets[batch.counted])

    def _sampled(self, batch: Batch) -> Tensor:
        histories, targets = batch.histories, batch.targets[batch.counted]
        negatives, log_q = self._negatives.draw()
        at_hand = torch.unique(torch.cat([histories.item_idx.flatten(), targets, negatives]))
        vectors, bias = self.model.items(self.features, at_hand)
        local = replace(histories, item_idx=torch.searchsorted(at_hand, histories.item_idx))
        states = self.model.encode_positions(local, vectors)
        return sampled_softmax(
            states[batch.counted],
            vectors,
            bias,
            torch.searchsorted(at_hand, targets),
            torch.searchsorted(at_hand, negatives),
            log_q[at_hand],
        )


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


def _choose_loss(config: TrainingSection, positions: int, n_items: int, dim: int) -> Loss:
    """`auto`: the full softmax where an epoch of it fits the time set, by the time that 256 positions take here."""
    if config.loss != "auto":
        return config.loss
    users, items, targets = torch.ones(256, dim), torch.ones(n_items, dim), torch.zeros(256, dtype=torch.int64)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        full_softmax(users, items, torch.zeros(n_items), targets)
        seconds.append(time.perf_counter() - began)
    estimate = min(seconds) * positions / len(users)
    return "full" if estimate <= config.full_epoch_seconds else "sampled"
