"""A log in which items follow one another, small enough to be learnt in a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from recbatch.model.fusion import Popularity
from recbatch.model.items import ItemFeatures
from recbatch.model.neighbours import Neighbours
from recbatch.ranking.csr import Csr
from recbatch.training.dataset import count_items, open_sequences
from recbatch.training.judging import Past
from recbatch.training.run import Inputs
from recbatch.training.validation import Window

N_ITEMS, N_USERS = 80, 120
WINDOW = Window(700, 1001)
FOLLOWING = np.random.default_rng(1).permutation(N_ITEMS)  # what an item leads to


def silent(epoch: int, step: int, steps: int, loss: float, metric: float | None) -> None:
    """No one looks at this run."""


def make_inputs(folder: Path, buckets: int) -> Inputs:
    """Users who mostly go from an item to the one that follows it, in files of equal size, over times 0 to 999.

    Popularity knows nothing about them.
    """
    rng = np.random.default_rng(0)
    rows = []
    for u in range(N_USERS):
        n = int(rng.integers(8, 45))
        items = [int(rng.integers(N_ITEMS))]
        while len(items) < n:
            items.append(int(FOLLOWING[items[-1]] if rng.random() < 0.8 else rng.integers(N_ITEMS)))
        rows.append((f"u{u}", items, np.sort(rng.integers(0, 1000, n)).tolist()))
    files = []
    for b, some in enumerate(np.array_split(np.arange(N_USERS), buckets)):
        files.append(folder / f"{b:05d}.arrow")
        _write(files[-1], [rows[u] for u in some])
    codes = torch.arange(N_ITEMS) % 6 + 1
    return Inputs(files, ItemFeatures(((torch.arange(N_ITEMS + 1), codes),), torch.zeros(N_ITEMS, 2)), n_event_types=1)


def make_past(folder: Path, buckets: int) -> Past:
    """The same with co-occurrence: every other item's neighbour is the one that follows it, so that fusion helps."""
    inputs = make_inputs(folder, buckets)
    counts = torch.from_numpy(count_items(open_sequences(inputs.files), WINDOW.start, N_ITEMS).astype(np.float32))
    popularity = Popularity(counts, counts)
    indptr = (torch.arange(N_ITEMS + 1) + 1) // 2
    following = torch.from_numpy(FOLLOWING[::2].astype(np.int32))
    neighbours = Neighbours(Csr(indptr, following, torch.full((len(following),), 2.0)))
    return Past(replace(inputs, popularity=popularity), neighbours, popularity, WINDOW, seed=7)


def _write(file: Path, rows: Sequence[tuple[str, list[int], list[int]]]) -> None:
    table = pa.table(
        {
            "user_id": [row[0] for row in rows],
            "item_idx": pa.array([row[1] for row in rows], pa.list_(pa.int32())),
            "event_type": pa.array([[0] * len(row[1]) for row in rows], pa.list_(pa.int32())),
            "event_time": pa.array([row[2] for row in rows], pa.list_(pa.int64())),
            "price": pa.array([[0.0] * len(row[1]) for row in rows], pa.list_(pa.float32())),
            "quantity": pa.array([[0.0] * len(row[1]) for row in rows], pa.list_(pa.float32())),
        }
    )
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=70)
