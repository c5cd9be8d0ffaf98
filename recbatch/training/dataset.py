"""Training windows over memory-mapped Arrow files of `user_sequences`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.errors import ModelError
from recbatch.model.histories import Histories, Sequences

_SHUFFLED_BATCHES = 50  # batches are cut from this many, sorted by length, so that little padding is computed


def open_sequences(files: Sequence[Path]) -> list[Sequences]:
    """The record batches of Arrow IPC files, memory-mapped. Raises ModelError where a file is none."""
    parts: list[Sequences] = []
    for file in files:
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(file)))
            parts.extend(Sequences.from_arrow(reader.get_batch(i)) for i in range(reader.num_record_batches))
        except (pa.ArrowInvalid, KeyError, OSError, ValueError) as error:
            raise ModelError(
                f"training file '{file}' cannot be read: {error}", remedy="export the sequences again"
            ) from error
    return [part for part in parts if len(part)]


def stop_before(sequences: Sequences, moment: int | None) -> NDArray[np.int64]:
    """(N,): where the behaviours before `moment` (epoch seconds) end in the flat columns; None: where all end."""
    if moment is None:
        return sequences.offsets[1:]
    earlier = np.concatenate([[0], np.cumsum(sequences.columns["event_time"] < moment)])
    stop: NDArray[np.int64] = sequences.offsets[:-1] + earlier[sequences.offsets[1:]] - earlier[sequences.offsets[:-1]]
    return stop


@dataclass(frozen=True)
class Batch:
    """histories (B, L); targets (B, L) int64, the item that follows each position; counted (B, L) bool: in the loss."""

    histories: Histories
    targets: Tensor
    counted: Tensor


class TrainingWindows:
    """All windows of at most `context_length` behaviours, each position with the item that came next.

    A long sequence is cut from its end, so that its latest window is a full one. With `new_only`, a target that the
    user already had is left out of the loss.
    """

    def __init__(self, parts: list[Sequences], before: int | None, context_length: int, new_only: bool) -> None:
        self._parts = parts
        self._counted: list[NDArray[np.bool_]] = []  # a flat column a part: may this position be a target
        windows = []
        for p, part in enumerate(parts):
            end = stop_before(part, before)
            counted = _first_occurrence(part) if new_only else np.ones(len(part.columns["item_idx"]), dtype=np.bool_)
            self._counted.append(counted)
            start, stop = _cut(part.offsets[:-1], end - 1, context_length)
            so_far = np.concatenate([[0], counted.cumsum()])
            useful = so_far[stop + 1] > so_far[start + 1]
            windows.append(np.stack([np.full(useful.sum(), p), start[useful], stop[useful]]))
        self._windows = np.concatenate(windows, axis=1) if windows else np.empty((3, 0), dtype=np.int64)
        if not self._windows.shape[1]:
            raise ModelError(
                "no user has two behaviours to learn from" + ("" if before is None else f" before {before}"),
                remedy="give more history, or a later cut",
            )
        self.n_positions = int((self._windows[2] - self._windows[1]).sum())

    def __len__(self) -> int:
        return self._windows.shape[1]

    def n_batches(self, batch_rows: int) -> int:
        return -(-len(self) // batch_rows)

    def batches(self, batch_rows: int, generator: np.random.Generator) -> Iterator[Batch]:
        """One epoch in random order; a batch is as wide as its longest window."""
        shuffled = generator.permutation(len(self))
        for low in range(0, len(shuffled), _SHUFFLED_BATCHES * batch_rows):
            pool = shuffled[low : low + _SHUFFLED_BATCHES * batch_rows]
            pool = pool[np.argsort(self._lengths(pool), kind="stable")]
            for b in generator.permutation(-(-len(pool) // batch_rows)):
                yield self._batch(pool[b * batch_rows : (b + 1) * batch_rows])

    def _lengths(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        lengths: NDArray[np.int64] = self._windows[2, rows] - self._windows[1, rows]
        return lengths

    def _batch(self, rows: NDArray[np.int64]) -> Batch:
        width = int(self._lengths(rows).max())
        rows = rows[np.argsort(self._windows[0, rows], kind="stable")]  # by part: each is read once
        histories, targets, counted = [], [], []
        for p in np.unique(self._windows[0, rows]):
            _, start, stop = self._windows[:, rows[self._windows[0, rows] == p]]
            histories.append(self._parts[p].pad(start, stop, width))
            following = start[:, None] + 1 + np.arange(width)
            real = following <= stop[:, None]
            following = np.where(real, following, start[:, None])
            targets.append(self._parts[p].columns["item_idx"][following].astype(np.int64) * real)
            counted.append(self._counted[p][following] & real)
        return Batch(
            Histories.concatenate(histories),
            torch.from_numpy(np.concatenate(targets)),
            torch.from_numpy(np.concatenate(counted)),
        )


def count_items(parts: list[Sequences], before: int | None, n_items: int) -> NDArray[np.int64]:
    """(I,): behaviours an item before the moment."""
    counts = np.zeros(n_items, dtype=np.int64)
    for part in parts:
        known = part.select(part.offsets[:-1], stop_before(part, before)).columns["item_idx"]
        if known.size and int(known.max()) >= n_items:
            raise ModelError(
                f"the sequences hold item_idx {int(known.max())}, item_features only {n_items} items",
                remedy="make the features again: the two tables are of different runs",
            )
        counts += np.bincount(known, minlength=n_items)
    return counts


def _cut(begin: NDArray[np.int64], end: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
