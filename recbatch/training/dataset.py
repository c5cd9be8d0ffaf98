"""What is learnt from: memory-mapped Arrow files of `user_sequences`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recbatch.errors import ModelError
from recbatch.model.histories import Sequences


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
