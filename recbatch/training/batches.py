"""Training examples and their batches: every position with the history before it, alone or a window at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.config.learning import TrainingSection
from recbatch.errors import ModelError
from recbatch.model.histories import Histories, Sequences
from recbatch.model.recommender import Recommender
from recbatch.training.positions import Integers, Positions, narrow

_SHUFFLED_BATCHES = 50  # batches are cut from this many, sorted by length, so that little padding is computed
_FEW = 50  # an epoch of less than a fiftieth of all examples is drawn by numpy without numbering them all
_DAY = 86_400


@dataclass(frozen=True)
class Weighting:
    """What a target weighs in the loss: by its event type (T,), and halved for every `half_life` seconds of age."""

    of_type: NDArray[np.float32] | None = None
    half_life: float | None = None

    @classmethod
    def create(cls, config: TrainingSection, event_types: Sequence[str]) -> Weighting:
        """As configured. Raises ModelError for a weight of a type that the input does not have."""
        unknown = sorted(config.event_type_weights.keys() - set(event_types))
        if unknown:
            raise ModelError(
                f"training.event_type_weights names '{unknown[0]}', which is no event type of the input",
                remedy=f"name some of {', '.join(event_types)}",
            )
        of_type = None
        if config.event_type_weights:
            of_type = np.array([config.event_type_weights.get(one, 1.0) for one in event_types], dtype=np.float32)
        days = config.recency_half_life_days
        return cls(of_type, None if days is None else days * _DAY)

    def of(self, part: Sequences, targets: Integers, latest: int) -> NDArray[np.float32] | None:
        """The weights of some positions of a part; None where all are alike."""
        if self.of_type is None and self.half_life is None:
            return None
        weights = np.ones(targets.shape, np.float32)
        if self.of_type is not None:
            weights *= self.of_type[part.columns["event_type"][targets]]
        if self.half_life is not None:
            weights *= np.exp2((part.columns["event_time"][targets] - latest) / self.half_life).astype(np.float32)
        return weights


@dataclass(frozen=True)
class Batch:
    """histories (B, L); targets (N,) int64 and weights (N,), None: all alike; counted (B, L) bool has N true entries:
    the positions whose next item is a target; None: the last one of every row.
    """

    histories: Histories
    targets: Tensor
    weights: Tensor | None
    counted: Tensor | None

    def states(self, model: Recommender, histories: Histories, item_vectors: Tensor) -> Tensor:
        """(N, d): the user vectors that score the targets; `histories`: its own, with items as item_vectors has."""
        if self.counted is None:
            return model.encode(histories, item_vectors)
        return model.encode_positions(histories, item_vectors)[self.counted]


class Examples:
    """All positions before a moment with the at most `context_length` behaviours before each.

    `windows`: a sequence is cut into windows from its end, and one pass over a window gives the states of all its
    positions, which share what is dropped of the history. `prefixes`: every position is an example of its own, with
    dropout of its own, which ranks better and costs more (docs/quality.md); `epoch_positions` of them are drawn anew
    for every epoch. With targets `new`, one that the user already had is left out of the loss.
    """

    def __init__(
        self,
        parts: list[Sequences],
        before: int | None,
        context_length: int,
        config: TrainingSection,
        weighting: Weighting | None = None,
    ) -> None:
        self._config = config
        self._weighting = weighting or Weighting()
        self._prefixes = config.examples == "prefixes"
        self._latest = max((int(part.columns["event_time"].max(initial=0)) for part in parts), default=0)
        if before is not None:
            self._latest = min(self._latest, before)
        self._parts = [Positions.create(part, before, context_length, config) for part in parts]
        # Where the examples of a part begin among all.
        self._first = np.concatenate([[0], np.cumsum([len(part) for part in self._parts], dtype=np.int64)])
        if not len(self):
            raise ModelError(
                "no user has two behaviours to learn from" + ("" if before is None else f" before {before}"),
                remedy="give more history, or a later cut",
            )
        self.n_positions = self._epoch_rows() if self._prefixes else sum(part.n_positions for part in self._parts)

    def __len__(self) -> int:
        return int(self._first[-1])

    def n_batches(self) -> int:
        """An epoch has."""
        return -(-self._epoch_rows() // self._config.batch_rows)

    def _epoch_rows(self) -> int:
        limit = self._config.epoch_positions if self._prefixes else None
        return min(len(self), limit or len(self))

    def batches(self, generator: np.random.Generator) -> Iterator[Batch]:
        """One epoch in random order; a batch is as wide as its longest history."""
        shuffled, batch_rows = self._draw(generator), self._config.batch_rows
        for low in range(0, len(shuffled), _SHUFFLED_BATCHES * batch_rows):
            pool = self._locate(shuffled[low : low + _SHUFFLED_BATCHES * batch_rows])
            pool = pool[:, np.argsort(pool[2] - pool[1], kind="stable")]
            for b in generator.permutation(-(-pool.shape[1] // batch_rows)):
                yield self._batch(pool[:, b * batch_rows : (b + 1) * batch_rows])

    def _draw(self, generator: np.random.Generator) -> NDArray[Any]:
        """The examples of an epoch, in random order."""
        some = self._epoch_rows()
        if some <= len(self) // _FEW:
            return generator.choice(len(self), some, replace=False)
        order = np.arange(len(self), dtype=narrow(len(self)))
        generator.shuffle(order)
        return order if some == len(self) else order[:some].copy()

    def _locate(self, examples: NDArray[Any]) -> Integers:
        """(3, n): the part, the first behaviour of the history, and the target that follows the last one."""
        located = np.empty((3, len(examples)), dtype=np.int64)
        located[0] = np.searchsorted(self._first, examples, side="right") - 1
        for p in np.unique(located[0]):
            here = np.flatnonzero(located[0] == p)
            located[1, here], located[2, here] = self._parts[p].ranges(examples[here] - self._first[p])
        return located

    def _batch(self, rows: Integers) -> Batch:
        """rows: as from `_locate`."""
        width = int((rows[2] - rows[1]).max())
        rows = rows[:, np.argsort(rows[0], kind="stable")]  # by part: each is read once
        histories, targets, weights, counted = [], [], [], []
        for p in np.unique(rows[0]):
            part, allowed = self._parts[p].sequences, self._parts[p].counted
            _, start, stop = rows[:, rows[0] == p]
            histories.append(part.pad(start, stop, width))
            at = stop
            if not self._prefixes:
                following = start[:, None] + 1 + np.arange(width)
                real = following <= stop[:, None]
                if allowed is not None:
                    real &= allowed[np.where(real, following, start[:, None])]
                counted.append(real)
                at = following[real]
            targets.append(part.columns["item_idx"][at].astype(np.int64))
            of_targets = self._weighting.of(part, at, self._latest)
            if of_targets is not None:
                weights.append(of_targets)
        return Batch(
            Histories.concatenate(histories),
            torch.from_numpy(np.concatenate(targets)),
            torch.from_numpy(np.concatenate(weights)) if weights else None,
            torch.from_numpy(np.concatenate(counted)) if counted else None,
        )
