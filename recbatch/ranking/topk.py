"""The exact K best items of a batch of users over all items, as fast as the machine's fastest matrix product allows.

A first pass walks over tiles of items with a product in a narrow type and keeps whatever its error bound cannot rule
out; tiles that cannot reach anyone's list any more are not multiplied at all. The few survivors are scored in a fixed
order in float64. So the lists depend on the vectors alone: not on batch, tile, arithmetic or threads.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbatch.errors import ModelError
from recbatch.ranking.candidates import Pool, Vectors, finish, reference_scores
from recbatch.ranking.catalogue import Catalogue
from recbatch.ranking.csr import Csr
from recbatch.ranking.exact import ItemMatrix, TopK, check_finite
from recbatch.ranking.scan import Masks, Sparse, Tile, push_skipped, scan
from recbatch.ranking.screen import Arithmetic, Screen, narrow, norms_from_above

__all__ = ["Catalogue", "ItemMatrix", "TopK", "pair_scores", "top_k", "top_k_of"]

_scratch = threading.local()
_LARGEST_SCORE = 2.0**126


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
    """As `top_k_of`, for items that are ranked only once."""
    norms = torch.linalg.vector_norm(users, dim=1) if users.ndim == 2 and len(users) else torch.ones(1)
    typical = float(norms.nan_to_num(1.0, 1.0).mean()) or 1.0
    catalogue = Catalogue.create(items, eligible=eligible, typical_norm=typical, tile_items=tile_items)
    return top_k_of(users, catalogue, k, excluded=excluded, additions=additions)


def top_k_of(
    users: Tensor,
    catalogue: Catalogue,
    k: int,
    *,
    excluded: Csr | None = None,
    additions: Csr | None = None,
    mask_of_user: NDArray[np.int64] | None = None,
) -> TopK:
    """The k best items of every user by u . v_i + b_i + addition(u, i); ties by `items.tie_rank`, ascending.

    users: (B, d) float32. excluded, additions: Csr with B rows. mask_of_user: (B,), the row of `catalogue.masks` that
    limits the user's items, -1 for none. A user with fewer than k items left has a shorter list.

    Raises:
        ModelError: a user vector or an addition is NaN or infinite, or scores can overflow float32.
        ValueError: shapes do not fit.
    """
    _check(users, catalogue, k, excluded, additions)
    item, score = np.empty((len(users), k), np.int32), np.empty((len(users), k), np.float32)
    found = np.zeros(len(users), np.int64)
    if catalogue.eligible and len(users):
        pass_ = _Pass(users, catalogue, k, excluded, additions, mask_of_user)
        pass_.run()
        found = finish(pass_.pool, pass_.vectors, k, item, score)
    listed = np.arange(k) < found[:, None]
    chosen = item[listed]
    if catalogue.item_idx is not None:
        chosen = catalogue.item_idx[chosen]
    indptr = np.concatenate([[0], found.cumsum()])
    return TopK(torch.from_numpy(indptr), torch.from_numpy(chosen), torch.from_numpy(score[listed]))


def pair_scores(
    users: Tensor, items: ItemMatrix, row: NDArray[np.int64], item: NDArray[np.int64], additions: Csr | None
) -> NDArray[np.float32]:
    """(N,): the scores of the users row (N,) for the items item (N,), with the bits that they have in a list.

    users: (B, d) float32. additions: Csr with B rows.

    Raises:
        ModelError: a user vector or a score is NaN or infinite.
    """
    check_finite(users, "user vector")
    added, scores = np.zeros(len(row), np.float32), np.empty(len(row), np.float32)
    if additions is not None and additions.values is not None and len(additions.indices):
        # Row and item as one number, which ascends over the entries.
        entries = additions.entry_rows().numpy() * len(items) + additions.indices.numpy()
        wanted = row * len(items) + item
        at = np.minimum(np.searchsorted(entries, wanted), len(entries) - 1)
        added = np.where(entries[at] == wanted, additions.values.numpy()[at], added)
    reference_scores(_vectors(users, items), row, item, added, scores)
    check_finite(torch.from_numpy(scores), "score")
    return scores


def _vectors(users: Tensor, items: ItemMatrix) -> Vectors:
    half = max(1, (1 << (users.shape[1] - 1).bit_length()) // 2)
    return Vectors(users.double().numpy(), items.vectors.numpy(), items.bias.numpy(), items.tie_rank, np.empty(half))


class _Pass:
    """One walk of a batch of users over the tiles of a catalogue."""

    def __init__(
        self,
        users: Tensor,
        catalogue: Catalogue,
        k: int,
        excluded: Csr | None,
        additions: Csr | None,
        mask_of_user: NDArray[np.int64] | None,
    ) -> None:
        self.catalogue, self.k = catalogue, k
        items, n_users = catalogue.items, len(users)
        self.pool = Pool.create(n_users, k)
        self.excluded = _sparse(excluded, n_users, catalogue.position)
        self.added = _sparse(additions, n_users, catalogue.position)
        self.masks = Masks(catalogue.masks, np.full(n_users, -1) if mask_of_user is None else mask_of_user)
        self.vectors = _vectors(users, items)
        screen = catalogue.screen
        self.users = narrow(users, screen.arithmetic)
        norms = torch.linalg.vector_norm(users, dim=1, dtype=torch.float64).numpy()
        largest = np.full(n_users, np.abs(self.added.values).max(initial=0.0), np.float64)
        self.errors, self.margins = screen.errors(self.users, largest)
        self.reach = catalogue.reach(norms)
        self.norms = norms_from_above(users)
        _check_reach(screen, norms, largest)

    def run(self) -> None:
        """Fill the pool."""
        screen, n_users = self.catalogue.screen, len(self.norms)
        size = n_users * int(np.diff(screen.bounds).max())
        products = _buffer(size, torch.int32 if screen.arithmetic is Arithmetic.INT8 else torch.float32)
        narrow_products = _buffer(size, torch.bfloat16) if screen.arithmetic is Arithmetic.BFLOAT16 else None
        skipped = np.zeros((n_users, len(screen.lost_share)), np.bool_)
        everyone = np.arange(n_users)
        for t in range(len(screen.lost_share)):
            skipped[:, t] = self.reach[t] < self.pool.cut
            rows = np.flatnonzero(~skipped[:, t]) if skipped[:, t].any() else everyone
            if len(rows):
                narrowed = self.users.rows
                if rows is not everyone:
                    narrowed = narrowed.index_select(0, torch.from_numpy(rows))
                scored = screen.multiply(narrowed, t, products, narrow_products).numpy()
                self._scan(scored, self._tile(t, rows, whole=rows is everyone))
        if len(self.added.indices) and skipped.any():
            push_skipped(
                skipped,
                self.catalogue.tile_items,
                self.catalogue.eligible,
                self.norms,
                self.catalogue.norms,
                self.excluded,
                self.added,
                self.masks,
                self.pool,
                self.vectors,
                self.k,
            )

    def _tile(self, t: int, rows: NDArray[np.int64], *, whole: bool) -> Tile:
        screen, scale = self.catalogue.screen, self.users.scale.numpy()
        error, margin = self.errors[t], self.margins[t]
        if not whole:
            scale, error, margin = scale[rows], error[rows], margin[rows]
        start, stop = int(screen.bounds[t]), int(screen.bounds[t + 1])
        items = slice(start, stop)
        return Tile(start, rows, scale, error, margin, screen.step[items], screen.norm[items], self.vectors.bias[items])

    def _scan(self, products: NDArray[Any], tile: Tile) -> None:
        hidden = self.catalogue.screen.hidden
        scan(products, hidden, tile, self.excluded, self.added, self.masks, self.pool, self.vectors, self.k)


def _buffer(size: int, dtype: torch.dtype) -> Tensor:
    """Memory for the products of a tile, kept for the next batch: fresh pages cost more than to fill them."""
    kept: dict[Any, Tensor] = _scratch.__dict__
    if dtype not in kept or len(kept[dtype]) < size:
        kept[dtype] = torch.empty(size, dtype=dtype)
    return kept[dtype]


def _sparse(csr: Csr | None, n_users: int, position: NDArray[np.int32] | None) -> Sparse:
    """A Csr of the caller's item indices by position in the catalogue, ascending within a row."""
    if csr is None:
        indptr = np.zeros(n_users + 1, np.int64)
        return Sparse(indptr, np.empty(0, np.int32), np.empty(0, np.float32), indptr[:-1].copy())
    indptr, indices = csr.indptr.numpy(), csr.indices.numpy()
    values = np.empty(0, np.float32) if csr.values is None else csr.values.numpy()
    if position is not None:
        moved = position[indices]
        order = np.argsort(csr.entry_rows().numpy() * len(position) + moved)
        indices = moved[order]
        values = values[order] if len(values) else values
    return Sparse(indptr, indices, values, indptr[:-1].copy())


def _check_reach(screen: Screen, norms: NDArray[np.float64], additions: NDArray[np.float64]) -> None:
    reach = norms * screen.largest_norm.max() + screen.largest_bias.max() + additions
    if reach.max() > _LARGEST_SCORE:
        raise ModelError(
            f"the score of user vector {int(reach.argmax())} can reach {reach.max():.3g}, beyond float32",
            remedy="the model diverged: train again with a lower learning rate",
        )


def _check(users: Tensor, catalogue: Catalogue, k: int, excluded: Csr | None, additions: Csr | None) -> None:
    n_items, d = catalogue.items.vectors.shape
    if users.ndim != 2 or users.shape[1] != d or users.dtype != torch.float32:
        raise ValueError(f"user vectors must be (B, {d}) float32, got {tuple(users.shape)} {users.dtype}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    for name, csr in (("excluded", excluded), ("additions", additions)):
        if csr is None:
            continue
        if csr.n_rows != len(users):
            raise ValueError(f"'{name}' has {csr.n_rows} rows for {len(users)} users")
        if not csr.trusted and len(csr.indices) and not 0 <= int(csr.indices.min()) <= int(csr.indices.max()) < n_items:
            raise ValueError(f"'{name}' holds an item_idx outside 0..{n_items - 1}")
    if additions is not None and additions.values is None:
        raise ValueError("'additions' has no values")
    if torch.get_float32_matmul_precision() != "highest":
        # The error bound is that of float32; torch may otherwise multiply in bfloat16.
        raise ModelError(
            f"torch multiplies float32 matrices at precision '{torch.get_float32_matmul_precision()}'",
            remedy="call torch.set_float32_matmul_precision('highest')",
        )
    check_finite(users, "user vector")
    if additions is not None and additions.values is not None and not additions.trusted:
        check_finite(additions.values, "score addition")
