"""The exact K best items of a batch of users over all items, near the speed of the bare matrix product.

Pass 1 walks over tiles of items with a float32 matrix product and keeps whatever its error bound cannot rule out.
Pass 2 scores the few survivors again in a fixed order in float64. So the lists depend on the vectors alone, never on
batch, tile size or threads.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.errors import ModelError
from recbatch.ranking.csr import Csr
from recbatch.ranking.exact import ItemMatrix, Pairs, TopK, best_k, check_finite, error_margin, exact_scores

__all__ = ["ItemMatrix", "TopK", "top_k"]

_LARGEST_GROUP = 16  # items that share one maximum in pass 1
_LOWEST = np.finfo(np.float32).min


def top_k(
    users: Tensor,
    items: ItemMatrix,
    k: int,
    *,
    excluded: Csr | None = None,
    additions: Csr | None = None,
    eligible: Tensor | None = None,
    tile_items: int = 2048,
) -> TopK:
    """The k best items of every user by u . v_i + b_i + addition(u, i); ties by `items.tie_rank`, ascending.

    users: (B, d) float32. excluded, additions: Csr with B rows. eligible: (I,) bool, None where every item is.
    A user with fewer than k items left has a shorter list.

    Raises:
        ModelError: a user vector or an addition is NaN or infinite, or scores can overflow float32.
        ValueError: shapes do not fit.
    """
    _check(users, items, k, excluded, additions, eligible, tile_items)
    largest_addition = 0.0
    if additions is not None and additions.values is not None and len(additions.values):
        check_finite(additions.values, "score addition")
        largest_addition = float(additions.values.abs().max())
    check_finite(users, "user vector")
    bias = items.bias if eligible is None else items.bias.masked_fill(~eligible, -torch.inf)
    tile, group = _layout(min(tile_items, max(len(items), 1)), k)
    pool = _Pool(k, error_margin(users, items, largest_addition), tile // group)
    added, removed = _by_tile(additions, tile), _by_tile(excluded, tile)
    buffer = torch.empty(len(users) * tile)
    for start in range(0, len(items) if len(users) else 0, tile):
        n = min(tile, len(items) - start)
        width = -(-n // group) * group
        scores = buffer[: len(users) * width].view(len(users), width)
        torch.addmm(bias[start : start + n], users, items.vectors[start : start + n].t(), out=scores[:, :n])
        scores[:, n:] = -torch.inf
        if added is not None:
            at, values = added.positions(start, width)
            scores.view(-1).index_add_(0, at, values)
        if removed is not None:
            scores.view(-1).index_fill_(0, removed.positions(start, width)[0], -torch.inf)
        pool.collect(scores.view(len(users), group, width // group), start)
        if pool.is_full():  # more ties than the bound can tell apart: only reference scores can
            pool.replace(_ranked(users, items, pool.pairs(), additions, k))
    (rows, cols), scores_ = _ranked(users, items, pool.pairs(), additions, k)
    indptr = np.searchsorted(rows, np.arange(len(users) + 1))
    return TopK(torch.from_numpy(indptr), torch.from_numpy(cols.astype(np.int32)), torch.from_numpy(scores_))


def _ranked(
    users: Tensor, items: ItemMatrix, pairs: Pairs, additions: Csr | None, k: int
) -> tuple[Pairs, NDArray[np.float32]]:
    scores = exact_scores(users, items, pairs, additions)
    best = best_k(pairs, scores, items.tie_rank, k)
    return (pairs[0][best], pairs[1][best]), scores[best]


def _layout(tile_items: int, k: int) -> tuple[int, int]:
    """Tile width and group size: a tile needs some 2 k groups for its maxima to bound the k-th best score well."""
    group = _LARGEST_GROUP
    while group > 1 and tile_items // group < 2 * k:
        group //= 2
    return -(-tile_items // group) * group, group


def _check(
    users: Tensor,
    items: ItemMatrix,
    k: int,
    excluded: Csr | None,
    additions: Csr | None,
    eligible: Tensor | None,
    tile_items: int,
) -> None:
    d = items.vectors.shape[1]
    if users.ndim != 2 or users.shape[1] != d or users.dtype != torch.float32:
        raise ValueError(f"user vectors must be (B, {d}) float32, got {tuple(users.shape)} {users.dtype}")
    if k < 1 or tile_items < 1:
        raise ValueError(f"k and tile_items must be at least 1, got {k} and {tile_items}")
    if eligible is not None and (eligible.shape != (len(items),) or eligible.dtype != torch.bool):
        raise ValueError(f"eligible must be ({len(items)},) bool, got {tuple(eligible.shape)} {eligible.dtype}")
    for name, csr in (("excluded", excluded), ("additions", additions)):
        if csr is None:
            continue
        if csr.n_rows != len(users):
            raise ValueError(f"'{name}' has {csr.n_rows} rows for {len(users)} users")
        if len(csr.indices) and not 0 <= int(csr.indices.min()) <= int(csr.indices.max()) < len(items):
            raise ValueError(f"'{name}' holds an item_idx outside 0..{len(items) - 1}")
    if additions is not None and additions.values is None:
        raise ValueError("'additions' has no values")
    if torch.get_float32_matmul_precision() != "highest":
        # The error bound is that of float32; torch may otherwise multiply in bfloat16.
        raise ModelError(
            f"torch multiplies float32 matrices at precision '{torch.get_float32_matmul_precision()}'",
            remedy="call torch.set_float32_matmul_precision('highest')",
        )


class _Tiled:
    """The entries of a Csr in the order of the tiles they fall in."""

    def __init__(self, csr: Csr, tile: int) -> None:
        tiles = csr.indices.numpy() // tile
        order = np.argsort(tiles, kind="stable")
        self._rows = csr.entry_rows().numpy()[order]
        self._cols = csr.indices.numpy()[order].astype(np.int64)
        self._values = torch.empty(0) if csr.values is None else csr.values[torch.from_numpy(order)]
        self._bounds = np.concatenate([[0], np.bincount(tiles).cumsum()])
        self._tile = tile

    def positions(self, start: int, width: int) -> tuple[Tensor, Tensor]:
        """Positions in the flat (B, width) tile that begins at item `start`, and the values there."""
        t = start // self._tile
        low, high = self._bounds[np.minimum([t, t + 1], len(self._bounds) - 1)]
        at = self._rows[low:high] * width + (self._cols[low:high] - start)
        return torch.from_numpy(at), self._values[low:high]


def _by_tile(csr: Csr | None, tile: int) -> _Tiled | None:
    return None if csr is None or len(csr.indices) == 0 else _Tiled(csr, tile)


class _Pool:
    """The pairs that may still be among the k best of their user, and the running bound that rules out the others.

    The k-th largest of group maxima is a lower bound of the k-th best score, as every group holds another item. It
    costs a vertical maximum over the tile, where a comparison of every score would cost four times that.
    """

    def __init__(self, k: int, margin: NDArray[np.float64], groups: int) -> None:
        n_users = len(margin)
        self._k, self._margin = k, margin
        self._cut = np.full(n_users, _LOWEST)  # finite: minus infinity (excluded) never passes
        # A user's k best group maxima as of the last bound, then `_fill` more that came since.
        self._maxima = np.full((n_users, 2 * (k + groups)), -np.inf, dtype=np.float32)
        self._fill = np.zeros(n_users, dtype=np.int64)
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        self._size = 0
        self._limit = max(1 << 19, 8 * n_users * k)

    def collect(self, scores: Tensor, start: int) -> None:
        """Keep what may matter of one tile; scores (B, group, n) hold item start + g * n + j at [b, g, j]."""
        n_users, group, n = scores.shape
        maxima = scores.amax(1).numpy()
        rows, j = np.divmod(np.flatnonzero(maxima >= self._cut[:, None]), n)
        self._note(rows, maxima[rows, j])
        if len(rows) > n_users * self._k // 2:
            self._raise_cut()
            rows, j = np.divmod(np.flatnonzero(maxima >= self._cut[:, None]), n)
        members = n * np.arange(group)[:, None] + (rows * (group * n) + j)  # (group, hits)
        values = scores.view(-1).index_select(0, torch.from_numpy(members).view(-1)).numpy()
        passed = np.flatnonzero(values.reshape(group, -1) >= self._cut[rows])
        g, hit = np.divmod(passed, max(len(rows), 1))
        self._parts.append((rows[hit], start + g * n + j[hit], values[passed]))
        self._size += len(passed)

    def is_full(self) -> bool:
        """Whether the pool is too large even after dropping what the present bound rules out."""
        if self._size > self._limit:
            self.pairs()
        return self._size > self._limit // 2

    def pairs(self) -> Pairs:
        """What is left of all tiles so far: user rows and item indices."""
        self._raise_cut()
        parts = [np.concatenate(column) for column in zip(*self._parts, strict=True)]
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        keep = parts[2] >= self._cut[parts[0]]
        rows, cols, values = (part[keep] for part in parts)
        self._parts, self._size = [(rows, cols, values)], len(rows)
        return rows, cols

    def replace(self, ranked: tuple[Pairs, NDArray[np.float32]]) -> None:
        """Put the k best by reference score in place of all pairs; a reference score is within the bound as well."""
        (rows, cols), scores = ranked
        self._parts, self._size = [(rows, cols, scores)], len(rows)

    def _note(self, rows: NDArray[np.int64], maxima: NDArray[np.float32]) -> None:
        """Remember group maxima that passed; rows ascend. Those below the bound cannot change it."""
        counts = np.bincount(rows, minlength=len(self._fill))
        if (self._fill + counts).max() > self._maxima.shape[1] - self._k:
            self._raise_cut()
        at = np.arange(len(rows)) + (self._k + self._fill - counts.cumsum() + counts)[rows]
        self._maxima[rows, at] = maxima
        self._fill += counts

    def _raise_cut(self) -> None:
        fill = int(self._fill.max(initial=0))
        used = self._maxima[:, : self._k + fill]
        best = np.partition(used, fill, axis=1)[:, fill:]
        used[:, self._k :] = -np.inf
        used[:, : self._k] = best
        self._fill[:] = 0
        cut = np.nextafter((best[:, 0] - self._margin).astype(np.float32), np.float32(-np.inf))
        self._cut = np.maximum(cut, _LOWEST)
