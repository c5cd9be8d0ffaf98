"""What is learnt from: memory-mapped Arrow files of `user_sequences`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recbatch.errors import ModelError
from recbatch.model.histories import Sequences

_CHUNK = 1 << 16  # behaviours: what is computed of so many at once stays small, and takes no longer


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


def chunks(sequences: Sequences) -> Iterator[tuple[slice, Sequences]]:
    """Consecutive users with few behaviours together (or one with many), and views of their sequences.

    The columns may be larger than memory, and so what is computed of every behaviour as well.
    """
    low = 0
    while low < len(sequences):
        limit = sequences.offsets[low] + _CHUNK
        high = max(low + 1, int(np.searchsorted(sequences.offsets, limit, side="right")) - 1)
        begin, end = sequences.offsets[low], sequences.offsets[high]
        columns = {name: column[begin:end] for name, column in sequences.columns.items()}
        yield slice(low, high), Sequences(sequences.offsets[low : high + 1] - begin, columns)
        low = high


def stop_before(sequences: Sequences, moment: int | None) -> NDArray[np.int64]:
    """(N,): where the behaviours before `moment` (epoch seconds) end in the flat columns; None: where all end."""
    if moment is None:
        return sequences.offsets[1:]
    stop = sequences.offsets[:-1].copy()
    for users, some in chunks(sequences):
        earlier = np.concatenate([[0], np.cumsum(some.columns["event_time"] < moment)])
        stop[users] += earlier[some.offsets[1:]] - earlier[some.offsets[:-1]]
    return stop


def count_items(parts: list[Sequences], before: int | None, n_items: int) -> NDArray[np.int64]:
    """(I,): behaviours an item before the moment."""
    counts = np.zeros(n_items, dtype=np.int64)
    for part in parts:
        for _, some in chunks(part):
            known = some.columns["item_idx"]
            if before is not None:
                known = known[some.columns["event_time"] < before]
            if known.size and int(known.max()) >= n_items:
                raise ModelError(
                    f"the sequences hold item_idx {int(known.max())}, item_features only {n_items} items",
                    remedy="make the features again: the two tables are of different runs",
                )
            np.add.at(counts, known, 1)
    return counts
