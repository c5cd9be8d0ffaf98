"""Public data as the pipeline has it: users' sequences, items' attributes, and counts, without Spark."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from recbatch.config.sections import NeighboursSection
from recbatch.evaluation.metrics import Truth
from recbatch.evaluation.protocol import Cases
from recbatch.evaluation.splits import Holdout, Split, leave_one_out
from recbatch.features import counting
from recbatch.features.cuts import UNIT, Cuts, Decay
from recbatch.model.fusion import Popularity
from recbatch.model.histories import Sequences
from recbatch.model.items import ItemFeatures
from recbatch.model.neighbours import Neighbours
from recbatch.ranking.csr import Csr
from recbatch.training.validation import Window

# The first 3,000 users of S3-Rec's Toys and Games, and the attributes of their items.
SAMPLE = Path(__file__).parent / "data" / "toys_sample.txt"
# The last behaviour of every user is at this second, the one before it a second earlier, and so on: so windows of time
# hold one behaviour a user each. Of users that are only learnt from it is two seconds earlier.
_LAST = 1_000_000_000


@dataclass(frozen=True)
class Log:
    """offsets (N + 1,), items (M,): the sequences of N users. popularity: of what is learnt from."""

    offsets: NDArray[np.int64]
    items: NDArray[np.int32]
    features: ItemFeatures
    popularity: Popularity

    @property
    def n_items(self) -> int:
        return len(self.features)

    @cached_property
    def split(self) -> Split:
        """What is learnt from, validated on and tested on."""
        return leave_one_out(self.offsets)

    @cached_property
    def sequences(self) -> Sequences:
        """As the pipeline reads them."""
        sizes = np.diff(self.offsets)
        end = self.split.train_stop + 2
        zeros = np.zeros(len(self.items), np.float32)
        columns: dict[str, NDArray[Any]] = {
            "item_idx": self.items,
            "event_type": zeros.astype(np.int32),
            "event_time": _LAST + 1 - (np.repeat(end, sizes) - np.arange(len(self.items))),
            "price": zeros,
            "quantity": zeros,
        }
        return Sequences(self.offsets, columns)


def validation_window() -> Window:
    return Window(_LAST - 1, _LAST)


def read_log(sequences: Path, attributes: Path | None, seed: int) -> Log:
    """Read both files, and number items at random."""
    lines = [line.split()[1:] for line in sequences.read_text().splitlines() if line.strip()]
    names = sorted({item for line in lines for item in line})
    number = dict(zip(names, np.random.default_rng(seed).permutation(len(names)).tolist(), strict=True))
    offsets = np.concatenate([[0], np.cumsum([len(line) for line in lines])]).astype(np.int64)
    items = np.array([number[item] for line in lines for item in line], np.int32)
    learnt = np.arange(len(items)) < np.repeat(leave_one_out(offsets).train_stop, np.diff(offsets))
    counts = torch.from_numpy(np.bincount(items[learnt], minlength=len(names)).astype(np.float32))
    found = {} if attributes is None else json.loads(attributes.read_text())
    return Log(offsets, items, _features(found, number), Popularity(counts, counts))


def _features(attributes: dict[str, list[int | str]], number: dict[str, int]) -> ItemFeatures:
    """One field with all values of an item."""
    if not attributes:
        return ItemFeatures((), torch.zeros(len(number), 0))
    values = sorted({str(value) for some in attributes.values() for value in some})
    code = {value: n for n, value in enumerate(values, start=1)}
    of_item: list[list[int]] = [[] for _ in number]
    for item, some in attributes.items():
        if item in number:
            of_item[number[item]] = sorted(code[str(value)] for value in some)
    indptr = np.concatenate([[0], np.cumsum([len(some) for some in of_item])])
    codes = np.array([one for some in of_item for one in some], np.int64)
    return ItemFeatures(((torch.from_numpy(indptr), torch.from_numpy(codes)),), torch.zeros(len(number), 0))


def write_arrow(log: Log, folder: Path) -> Path:
    """The sequences as the trainer reads them."""
    offsets = pa.array(log.offsets.astype(np.int32))
    columns = log.sequences.columns.items()
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(column)) for name, column in columns}
    table = pa.table({"user_id": [str(user) for user in range(len(log.offsets) - 1)]} | lists)
    file = folder / "sequences.arrow"
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return file


def held_out(log: Log, holdout: Holdout) -> Cases:
    """The users of a holdout: all items are ranked for them but those of their histories, unless it is the target."""
    target = log.items[holdout.middle].astype(np.int64)
    histories = log.sequences.select(holdout.start, holdout.middle)
    row = np.repeat(np.arange(len(target)), np.diff(histories.offsets))
    had = np.unique(row * log.n_items + histories.columns["item_idx"])
    row, item = np.divmod(had[~np.isin(had, np.arange(len(target)) * log.n_items + target)], log.n_items)
    indptr = np.searchsorted(row, np.arange(len(target) + 1)).astype(np.int64)
    excluded = Csr(torch.from_numpy(indptr), torch.from_numpy(item.astype(np.int32)))
    truth = Truth(np.arange(len(target) + 1), target)
    return Cases(histories, truth, excluded, np.ones(log.n_items, np.bool_))


def cooccurrence(log: Log, section: NeighboursSection) -> Neighbours:
    """What the job of the stage `features` counts, over what is learnt from."""
    start = log.offsets[:-1]
    sizes = log.split.train_stop - start
    offsets = np.concatenate([[0], sizes.cumsum()])
    at = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], sizes)
    items, times = log.items[at], log.sequences.columns["event_time"][at]
    cut = validation_window().start
    cuts = Cuts(cut, cut, cut)
    decay = Decay.create(cuts, section.half_life_days, cut - 86_400)
    first = np.zeros(len(items), np.bool_)
    user = np.repeat(np.arange(len(sizes)), sizes)
    first[np.unique(user * log.n_items + items, return_index=True)[1]] = True
    slots = counting.slots_of(times, cuts.seconds(), decay.first_day)
    width = log.n_items
    totals, parts = np.zeros((3, log.n_items), np.int64), np.zeros(1, np.int64)
    counting.count_pairs(offsets, items, first, slots, decay.weights, section.window, width, totals, parts)
    begins = np.concatenate([[0], parts])
    source, target, slot = counting.write_pairs(offsets, items, first, slots, section.window, width, begins)
    bounds = np.concatenate([[0], np.bincount(source, minlength=width).cumsum()])
    targets, their_slots = np.empty_like(target), np.empty_like(slot)
    counting.group_pairs(source, target, slot, bounds[:-1].copy(), targets, their_slots)
    damping = np.power(totals[0] / UNIT, section.target_power)
    ties = np.random.default_rng(0).permutation(log.n_items).astype(np.uint64)
    counts, neighbours, weights = counting.neighbours_of_all(
        bounds,
        targets,
        their_slots,
        decay.weights[0],
        damping,
        float(UNIT),
        section.source_power,
        ties,
        section.per_item,
    )
    owner = np.repeat(np.arange(log.n_items), counts)
    order = np.lexsort([neighbours, owner])
    indptr = np.concatenate([[0], counts.cumsum()])
    tensors = (indptr, neighbours[order], weights[order])
    return Neighbours(Csr(*map(torch.from_numpy, tensors)))
