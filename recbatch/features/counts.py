"""What is counted about items and about prices and quantities: by a worker over its users, then added up."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbatch.features import counting
from recbatch.features.cuts import Cuts
from recbatch.transforms.parameters import signed_log

N_CUTS = 3
AMOUNTS = ("price", "quantity")
# Of an item, before each cut: its users, its recent users, its weight as target of pairs; its prices and their sum.
_ITEM_ROWS = ("ever", "recent", "target", "priced", "price_high", "price_low")
_MOMENTS = 4


@dataclass
class Counts:
    """items: (6, C, I) int64, see _ITEM_ROWS. moments: (2, 4, C, 256), of every amount as in `add_moments`.

    low, high: (2, C) float32, the least and the greatest amount. values: by amount, the distinct values before each
    cut, as float32, and how often each occurs; only where they are asked for.
    """

    items: NDArray[np.int64]
    moments: NDArray[np.int64]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    values: dict[tuple[str, int], tuple[NDArray[np.float32], NDArray[np.int64]]] = field(default_factory=dict)

    @classmethod
    def zero(cls, n_items: int) -> Counts:
        return cls(
            np.zeros((len(_ITEM_ROWS), N_CUTS, n_items), np.int64),
            np.zeros((len(AMOUNTS), _MOMENTS, N_CUTS, 256), np.int64),
            np.full((len(AMOUNTS), N_CUTS), np.inf, np.float32),
            np.full((len(AMOUNTS), N_CUTS), -np.inf, np.float32),
        )

    def of_items(self, name: str) -> NDArray[np.int64]:
        """(C, I)"""
        rows: NDArray[np.int64] = self.items[_ITEM_ROWS.index(name)]
        return rows

    def add_amounts(
        self, columns: dict[str, NDArray[Any]], cuts: Cuts, logarithms: Sequence[str], distinct: Sequence[str]
    ) -> None:
        """Count prices and quantities.

        logarithms: the amounts whose moments are those of their `signed_log`. distinct: those whose values are kept.
        """
        time, moments = columns["event_time"], cuts.seconds()
        prices = [self.of_items(name) for name in ("priced", "price_high", "price_low")]
        counting.add_amounts(time, columns["item_idx"], columns["price"], moments, *prices)
        for n, name in enumerate(AMOUNTS):
            amount = columns[name]
            lifted = signed_log(amount.astype(np.float64)).astype(np.float32) if name in logarithms else amount
            counting.add_moments(time, lifted.view(np.uint32), moments, *self.moments[n])
            for cut, moment in enumerate(moments.tolist()):
                known = amount[(time < moment) & ~np.isnan(amount)]
                if len(known):
                    self.low[n, cut] = min(self.low[n, cut], known.min())
                    self.high[n, cut] = max(self.high[n, cut], known.max())
            if name in distinct:
                self._add_distinct(name, time, amount, moments)

    def _add_distinct(self, name: str, time: NDArray[Any], amount: NDArray[Any], moments: NDArray[np.int64]) -> None:
        """Count the values before each cut: what lies between two cuts is sorted once, and counts from there on."""
        between = np.searchsorted(moments, time, side="right")  # the first cut that is after it
        there = ~np.isnan(amount)
        for span in range(len(moments)):
            values, numbers = np.unique(amount[there & (between == span)], return_counts=True)
            for cut in range(span, len(moments)):
                self._add_values(name, cut, values, numbers)

    def _add_values(self, name: str, cut: int, values: NDArray[np.float32], numbers: NDArray[np.int64]) -> None:
        before = self.values.get((name, cut), (np.empty(0, np.float32), np.empty(0, np.int64)))
        merged, place = np.unique(np.concatenate([before[0], values]), return_inverse=True)
        sums = np.zeros(len(merged), np.int64)
        np.add.at(sums, place, np.concatenate([before[1], numbers]))
        self.values[name, cut] = (merged, sums)

    def to_bytes(self) -> bytes:
        """For `add`: the items that occur, and the rest whole."""
        seen = np.flatnonzero(self.items.any(axis=(0, 1)))
        arrays: dict[str, NDArray[Any]] = {"at": seen, "items": self.items[:, :, seen], "moments": self.moments}
        arrays |= {"low": self.low, "high": self.high}
        for (name, cut), (values, numbers) in self.values.items():
            arrays |= {f"values {name} {cut}": values, f"numbers {name} {cut}": numbers}
        sink = io.BytesIO()
        np.savez(sink, **arrays)  # type: ignore[arg-type]
        return sink.getvalue()

    def add(self, content: bytes) -> None:
        """Add what `to_bytes` has made of other counts of the same items."""
        with np.load(io.BytesIO(content), allow_pickle=False) as other:
            self.items[:, :, other["at"]] += other["items"]
            self.moments += other["moments"]
            self.low, self.high = np.minimum(self.low, other["low"]), np.maximum(self.high, other["high"])
            for key in other.files:
                if key.startswith("values "):
                    _, name, cut = key.split(" ")
                    self._add_values(name, int(cut), other[key], other[f"numbers {name} {cut}"])
