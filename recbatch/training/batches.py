"""Training examples and their batches: every position with the history before it, alone or a window at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.config.learning import TrainingSection
from recbatch.errors import ModelError
from recbatch.model.histories import Histories, Sequences
from recbatch.model.recommender import Recommender
from recbatch.training.dataset import stop_before

Integers = NDArray[np.int64]

_SHUFFLED_BATCHES = 50  # batches are cut from this many, sorted by length, so that little padding is computed
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
        self._parts, self._config = parts, config
        self._weighting = weighting or Weighting()
        self._prefixes = config.examples == "prefixes"
        self._counted: list[NDArray[np.bool_]] = []  # a flat column a part: may this position be a target
        self._latest = max((int(part.columns["event_time"].max(initial=0)) for part in parts), default=0)
        if before is not None:
            self._latest = min(self._latest, before)
        rows = []
        for p, part in enumerate(parts):
            end = stop_before(part, before)
            new_only = config.targets == "new"
            counted = _first_occurrence(part) if new_only else np.ones(len(part.columns["item_idx"]), dtype=np.bool_)
            self._counted.append(counted)
            if self._prefixes:
                start, stop = _before_each(part.offsets[:-1], end, counted, context_length)
            else:
                start, stop = _cut(part.offsets[:-1], end - 1, context_length)
                so_far = np.concatenate([[0], counted.cumsum()])
                useful = so_far[stop + 1] > so_far[start + 1]
                start, stop = start[useful], stop[useful]
            rows.append(np.stack([np.full(len(start), p), start, stop]))
        # part, first behaviour of the history, and the target that follows the last one
        self._rows = np.concatenate(rows, axis=1) if rows else np.empty((3, 0), dtype=np.int64)
        if not self._rows.shape[1]:
            raise ModelError(
                "no user has two behaviours to learn from" + ("" if before is None else f" before {before}"),
                remedy="give more history, or a later cut",
            )
        self.n_positions = self._epoch_rows() if self._prefixes else int(self._lengths(np.arange(len(self))).sum())

    def __len__(self) -> int:
        return self._rows.shape[1]

    def n_batches(self) -> int:
        """An epoch has."""
        return -(-self._epoch_rows() // self._config.batch_rows)

    def _epoch_rows(self) -> int:
        limit = self._config.epoch_positions if self._prefixes else None
        return min(len(self), limit or len(self))

    def batches(self, generator: np.random.Generator) -> Iterator[Batch]:
        """One epoch in random order; a batch is as wide as its longest history."""
        shuffled, batch_rows = generator.permutation(len(self))[: self._epoch_rows()], self._config.batch_rows
        for low in range(0, len(shuffled), _SHUFFLED_BATCHES * batch_rows):
            pool = shuffled[low : low + _SHUFFLED_BATCHES * batch_rows]
            pool = pool[np.argsort(self._lengths(pool), kind="stable")]
            for b in generator.permutation(-(-len(pool) // batch_rows)):
                yield self._batch(pool[b * batch_rows : (b + 1) * batch_rows])

    def _lengths(self, rows: Integers) -> Integers:
        lengths: Integers = self._rows[2, rows] - self._rows[1, rows]
        return lengths

    def _batch(self, rows: Integers) -> Batch:
        width = int(self._lengths(rows).max())
        rows = rows[np.argsort(self._rows[0, rows], kind="stable")]  # by part: each is read once
        histories, targets, weights, counted = [], [], [], []
        for p in np.unique(self._rows[0, rows]):
            part = self._parts[p]
            _, start, stop = self._rows[:, rows[self._rows[0, rows] == p]]
            histories.append(part.pad(start, stop, width))
            at = stop
            if not self._prefixes:
                following = start[:, None] + 1 + np.arange(width)
                real = following <= stop[:, None]
                real &= self._counted[p][np.where(real, following, start[:, None])]
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


def _before_each(begin: Integers, end: Integers, counted: NDArray[np.bool_], length: int) -> tuple[Integers, Integers]:
    """Where the at most `length` behaviours before every counted position of begin + 1..end - 1 begin, and it."""
    size = np.maximum(end - begin - 1, 0)
    first = np.repeat(begin, size)
    target = first + 1 + np.arange(len(first)) - np.repeat(size.cumsum() - size, size)
    useful = counted[target]
    first, target = first[useful], target[useful]
    return np.maximum(first, target - length), target


def _cut(begin: Integers, end: Integers, length: int) -> tuple[Integers, Integers]:
    """Split every range begin..end-1 into ranges of `length` from its end; the first of a range may be shorter."""
    size = np.maximum(end - begin, 0)
    pieces = -(-size // length)
    owner = np.repeat(np.arange(len(begin)), pieces)
    from_end = np.arange(len(owner)) - np.repeat(pieces.cumsum() - pieces, pieces)
    stop = end[owner] - from_end * length
    return np.maximum(begin[owner], stop - length), stop


def _first_occurrence(sequences: Sequences) -> NDArray[np.bool_]:
    """For every position: whether the user's sequence does not hold its item earlier."""
    item = sequences.columns["item_idx"].astype(np.int64)
    user = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    first = np.zeros(len(item), dtype=np.bool_)
    first[np.unique(user * (item.max(initial=0) + 1) + item, return_index=True)[1]] = True
    return first
