"""Histories of behaviour: ragged as they lie in `user_sequences`, padded as the network takes them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.transforms.parameters import Parameters, normalise

_COLUMNS: dict[str, np.dtype[Any]] = {
    "item_idx": np.dtype(np.int32),
    "event_type": np.dtype(np.int32),
    "event_time": np.dtype(np.int64),
    "price": np.dtype(np.float32),
    "quantity": np.dtype(np.float32),
}


@dataclass(frozen=True)
class Histories:
    """B users' behaviours in time order, left-aligned: positions lengths[b].. of row b are padding and zero.

    item_idx, event_type, event_time (epoch seconds): (B, L) int64. price, quantity (normalised): (B, L) float32.
    lengths: (B,) int64.
    """

    item_idx: Tensor
    event_type: Tensor
    event_time: Tensor
    price: Tensor
    quantity: Tensor
    lengths: Tensor

    @classmethod
    def concatenate(cls, parts: list[Histories]) -> Histories:
        """Batches of the same width as one."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


@dataclass(frozen=True)
class Sequences:
    """N users' behaviours, ragged: user n has positions offsets[n]..offsets[n+1]-1 of every flat column."""

    offsets: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> Sequences:
        """The behaviours of a batch of `user_sequences` rows, without a copy where Arrow's buffers allow it."""
        lists = {name: batch.column(name) for name in _COLUMNS}
        offsets = np.asarray(lists["item_idx"].offsets, dtype=np.int64)
        # flatten() honours the slice of a list column, and so starts at 0 where the offsets may not
        columns = {name: column.flatten().to_numpy(zero_copy_only=False) for name, column in lists.items()}
        for name, column in columns.items():
            if len(column) != offsets[-1] - offsets[0] or column.dtype != _COLUMNS[name]:
                raise ValueError(
                    f"column '{name}': {len(column)} {column.dtype} for {offsets[-1] - offsets[0]} behaviours"
                )
        return cls(offsets - offsets[0], columns)

    @classmethod
    def concatenate(cls, parts: list[Sequences]) -> Sequences:
        """The users of all parts, in order."""
        sizes = [np.diff(part.offsets) for part in parts]
        columns = {
            name: np.concatenate([np.empty(0, dtype), *(part.columns[name] for part in parts)])
            for name, dtype in _COLUMNS.items()
        }
        return cls(np.concatenate([[0], np.concatenate([[], *sizes]).cumsum()]).astype(np.int64), columns)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def normalised(self, price: Parameters, quantity: Parameters) -> Sequences:
        """With prices and quantities, raw as they lie in `user_sequences`, as the network takes them."""
        amounts = {"price": price, "quantity": quantity}
        made = {name: normalise(self.columns[name], parameters) for name, parameters in amounts.items()}
        return Sequences(self.offsets, self.columns | made)

    def pad(self, start: NDArray[np.int64], stop: NDArray[np.int64], width: int) -> Histories:
        """The positions start[b]..stop[b]-1 of the flat columns as B rows of `width`; none may be longer."""
        at = start[:, None] + np.arange(width)
        real = at < stop[:, None]
        padded = {}
        for name, column in self.columns.items():
            values = np.zeros(real.shape, dtype=np.int64 if column.dtype.kind == "i" else np.float32)
            values[real] = column[at[real]]
            padded[name] = torch.from_numpy(values)
        return Histories(**padded, lengths=torch.from_numpy(stop - start))

    def select(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> Sequences:
        """The positions start[m]..stop[m]-1 of the flat columns as the behaviours of M users."""
        offsets = np.concatenate([[0], (stop - start).cumsum()])
        at = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], stop - start)
        return Sequences(offsets, {name: column[at] for name, column in self.columns.items()})

    def without(self, start: NDArray[np.int64], stop: NDArray[np.int64], removed: NDArray[np.int64]) -> Sequences:
        """As `select`, with the position removed[m] of user m taken out; the behaviours around it close up."""
        whole = self.select(start, stop)
        gone = whole.offsets[:-1] + removed - start
        offsets = whole.offsets - np.arange(len(whole.offsets))
        return Sequences(offsets, {name: np.delete(column, gone) for name, column in whole.columns.items()})

    def last(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Start and stop of every user's last `length` behaviours, for `pad`."""
        return np.maximum(self.offsets[:-1], self.offsets[1:] - length), self.offsets[1:]
