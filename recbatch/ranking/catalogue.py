"""The items that can be recommended, in the order in which the kernel visits them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.ranking.arithmetic import fastest
from recbatch.ranking.exact import ItemMatrix
from recbatch.ranking.screen import Arithmetic, Screen

_KNOTS = 2.0 ** np.arange(-3, 3.25, 0.25)  # user norms, as multiples of the typical one
_SLACK = 2.0**-20  # more than the reference score loses when it is rounded to float32


@dataclass(frozen=True)
class Catalogue:
    """Items ready to be ranked for many batches of users.

    items: in visiting order. item_idx: (I,) int32, the caller's index of every one, or None where they are the same.
    eligible: how many of them, from the first, may be recommended. typical_norm: of a user vector.
    masks: (S, I) bool, what the users of segment s may get besides, in visiting order; (0, I) where there are none.
    """

    items: ItemMatrix
    item_idx: NDArray[np.int32] | None
    eligible: int
    typical_norm: float
    masks: NDArray[np.bool_]
    arithmetic: Arithmetic
    tile_items: int

    @classmethod
    def create(
        cls,
        items: ItemMatrix,
        *,
        eligible: Tensor | None = None,
        masks: Tensor | None = None,
        typical_norm: float = 1.0,
        arithmetic: Arithmetic | None = None,
        tile_items: int = 2048,
    ) -> Catalogue:
        """Put the items in visiting order; no copy is made of items that are in it already.

        eligible: (I,) bool, None where every item is. masks: (S, I) bool. arithmetic: None takes the fastest, measured.

        Raises:
            ValueError: shapes or types do not fit.
        """
        n_items, dim = items.vectors.shape
        if tile_items < 1:
            raise ValueError(f"tile_items must be at least 1, got {tile_items}")
        if eligible is not None and (eligible.shape != (n_items,) or eligible.dtype != torch.bool):
            raise ValueError(f"eligible must be ({n_items},) bool, got {tuple(eligible.shape)} {eligible.dtype}")
        if masks is not None and (masks.ndim != 2 or masks.shape[1] != n_items or masks.dtype != torch.bool):
            raise ValueError(f"masks must be (S, {n_items}) bool, got {tuple(masks.shape)} {masks.dtype}")
        order = visiting_order(items, eligible, typical_norm)
        allowed = np.empty((0, n_items), np.bool_) if masks is None else masks.numpy()
        count = n_items if eligible is None else int(eligible.sum())
        chosen = arithmetic or fastest(dim)
        if bool((order[1:] > order[:-1]).all()):
            return cls(items, None, count, typical_norm, allowed, chosen, tile_items)
        at = torch.from_numpy(order)
        ordered = ItemMatrix(items.vectors[at], items.bias[at], torch.from_numpy(items.tie_rank[order]))
        return cls(ordered, order.astype(np.int32), count, typical_norm, allowed[:, order], chosen, tile_items)

    def part(self, number: int, of: int) -> tuple[Catalogue, int]:
        """One of several parts of the eligible items, as a catalogue of views, and where it begins.

        Only for items in visiting order: the parts follow each other in it.
        """
        if self.item_idx is not None:
            raise ValueError("only a catalogue whose items are in visiting order has parts")
        start, stop = self.eligible * number // of, self.eligible * (number + 1) // of
        items = self.items.between(start, stop)
        masks = self.masks[:, start:stop]
        part = Catalogue(items, None, stop - start, self.typical_norm, masks, self.arithmetic, self.tile_items)
        return part, start

    @cached_property
    def position(self) -> NDArray[np.int32] | None:
        """(I,): the inverse of item_idx."""
        if self.item_idx is None:
            return None
        position = np.empty_like(self.item_idx)
        position[self.item_idx] = np.arange(len(position), dtype=np.int32)
        return position

    @cached_property
    def screen(self) -> Screen:
        """The first pass over the eligible items."""
        n = self.eligible
        return Screen.create(self.items.vectors[:n], self.items.bias[:n], self.arithmetic, self.tile_items)

    @property
    def norms(self) -> NDArray[np.float32]:
        """(eligible,): no vector is longer."""
        return self.screen.norm

    @cached_property
    def _reach_at_knots(self) -> NDArray[np.float64]:
        """(T, knots + 1): the largest b + x |v| of a tile at every knot x, and the largest |v|."""
        n, starts = self.eligible, self.screen.bounds[:-1]
        norms, bias = self.norms[:n].astype(np.float64), self.items.bias[:n].numpy().astype(np.float64)
        columns = [np.maximum.reduceat(bias + x * norms, starts) for x in _KNOTS * self.typical_norm]
        return np.stack([*columns, np.maximum.reduceat(norms, starts)], axis=1)

    def reach(self, user_norms: NDArray[np.float64]) -> NDArray[np.float64]:
        """(T, B): no item of the tile has a higher score for a user of that norm, additions apart.

        The largest b + x |v| is convex in x, so that a chord between two knots is above it; beyond the last knot it
        rises by at most the largest |v|. Rounding of the reference score is allowed for.
        """
        knots, table = _KNOTS * self.typical_norm, self._reach_at_knots
        at = np.clip(np.searchsorted(knots, user_norms) - 1, 0, len(knots) - 2)
        share = np.clip((user_norms - knots[at]) / (knots[at + 1] - knots[at]), 0.0, 1.0)
        beyond = np.maximum(user_norms - knots[-1], 0.0)
        reach = table[:, at] * (1 - share) + table[:, at + 1] * share + np.outer(table[:, -1], beyond)
        return reach + (np.abs(reach) + np.outer(table[:, -1], user_norms)) * _SLACK


def visiting_order(items: ItemMatrix, eligible: Tensor | None, typical_norm: float) -> NDArray[np.int64]:
    """(I,): eligible items first, then by what a user of typical norm could score them at most, the highest first.

    So the k-th best score is high after the first tiles, and the last ones often cannot reach it.
    """
    reach = items.bias + typical_norm * torch.linalg.vector_norm(items.vectors, dim=1)
    if eligible is not None:
        reach = torch.where(eligible, reach, -torch.inf)
    return torch.argsort(reach, descending=True, stable=True).numpy()
