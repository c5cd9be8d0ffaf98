"""Where the examples of a part lie in its flat columns: one number each, since the rest follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbatch.config.learning import TrainingSection
from recbatch.model.histories import Sequences
from recbatch.training.dataset import chunks, stop_before

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Positions:
    """E examples: the at most `length` behaviours of a user before a target, which is the last one of a window.

    targets (E,): positions in the flat columns, int32 where that holds them. counted (T,) bool: which behaviours a
    window may have as targets; None: all of them. n_positions: the states that all examples are learnt from by.
    """

    sequences: Sequences
    length: int
    targets: NDArray[Any]
    counted: NDArray[np.bool_] | None
    n_positions: int

    @classmethod
    def create(cls, sequences: Sequences, before: int | None, length: int, config: TrainingSection) -> Positions:
        """The examples that lie before a moment, without arrays of int64 of the size of the columns."""
        dtype = narrow(len(sequences.columns["item_idx"]))
        targets, counted, n_positions = [np.empty(0, dtype)], [], 0
        for users, some in chunks(sequences):
            begin, end = some.offsets[:-1], stop_before(some, before)
            allowed = _first_occurrence(some) if config.targets == "new" else None
            if config.examples == "prefixes":
                target = _after_first(begin, end)
                target = target if allowed is None else target[allowed[target]]
                n_positions += len(target)
            else:
                target = _cut(begin, end - 1, length)
                start = _start(some.offsets, target, length)
                if allowed is not None:
                    counted.append(allowed)
                    so_far = np.concatenate([[0], allowed.cumsum()])
                    useful = so_far[target + 1] > so_far[start + 1]
                    start, target = start[useful], target[useful]
                n_positions += int((target - start).sum())
            targets.append((target + sequences.offsets[users.start]).astype(dtype))
        whole = np.concatenate(counted) if counted else None
        return cls(sequences, length, np.concatenate(targets), whole, n_positions)

    def __len__(self) -> int:
        return len(self.targets)

    def ranges(self, examples: NDArray[Any]) -> tuple[Integers, Integers]:
        """(n,) each: where the histories of some examples begin, and their targets."""
        target = self.targets[examples].astype(np.int64)
        return _start(self.sequences.offsets, target, self.length), target


def narrow(size: int) -> type[np.int32 | np.int64]:
    """The integers that take the least memory and can number so many things."""
    return np.int32 if size <= np.iinfo(np.int32).max else np.int64


def _start(offsets: Integers, target: Integers, length: int) -> Integers:
    """Where the at most `length` behaviours of the same user before every target begin."""
    first: Integers = offsets[np.searchsorted(offsets, target, side="right") - 1]
    return np.maximum(first, target - length)


def _after_first(begin: Integers, end: Integers) -> Integers:
    """The positions begin + 1..end - 1 of every range."""
    size = np.maximum(end - begin - 1, 0)
    shift: Integers = begin + 1 - (size.cumsum() - size)
    return np.arange(size.sum()) + np.repeat(shift, size)


def _cut(begin: Integers, end: Integers, length: int) -> Integers:
    """Split every range begin..end-1 into ranges of `length` from its end; where each ends."""
    size = np.maximum(end - begin, 0)
    pieces = -(-size // length)
    from_end = np.arange(pieces.sum()) - np.repeat(pieces.cumsum() - pieces, pieces)
    stop: Integers = np.repeat(end, pieces) - from_end * length
    return stop


def _first_occurrence(sequences: Sequences) -> NDArray[np.bool_]:
    """For every position: whether the user's sequence does not hold its item earlier."""
    item = sequences.columns["item_idx"].astype(np.int64)
    user = np.repeat(np.arange(len(sequences)), np.diff(sequences.offsets))
    first = np.zeros(len(item), dtype=np.bool_)
    first[np.unique(user * (item.max(initial=0) + 1) + item, return_index=True)[1]] = True
    return first
