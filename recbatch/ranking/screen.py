"""The first pass: a fast matrix product whose distance from the reference scores is bounded.

A vector x is replaced by a narrower y with a known |x - y|. By Cauchy-Schwarz

    |u . v - u' . v'|  <=  |u - u'| |v|  +  |u'| |v - v'|

for the user's u, u' and the item's v, v'. To that comes the rounding of the product itself: a float32 sum of n
rounded terms, in any order, differs from the real one by at most gamma_n sum|terms|, gamma_n = n e / (1 - n e), with
e = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.1 and 3.3). Products of int8 are summed
exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_UNIT_ROUNDOFF = 2.0**-24
# Of everything around the product: conversion, scale, bias, addition, bounds, and the reference score's own rounding.
_AROUND = 16 * _UNIT_ROUNDOFF
_INT8_WIDTH = 4
_HIDDEN_INTEGER = np.int32(-(2**31))  # below every product of int8 vectors
_Errors = NDArray[np.float32]
_HIDDEN_FLOAT = np.float32(-np.inf)


class Arithmetic(StrEnum):
    """What the first pass multiplies; it decides the time and never a list."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


class Narrowed(NamedTuple):
    """Rows as the first pass takes them.

    rows: (N, d). scale: (N,) float32, real rows are rows * scale. norm, lost: (N,) float64, the norm of the real
    rows and of what they lack.
    """

    rows: Tensor
    scale: Tensor
    norm: Tensor
    lost: Tensor


def narrow(vectors: Tensor, arithmetic: Arithmetic) -> Narrowed:
    """(N, d) float32 vectors in the first pass's type."""
    if arithmetic is Arithmetic.FLOAT32:
        norm = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)
        return Narrowed(vectors, torch.ones(len(vectors)), norm, torch.zeros_like(norm))
    if arithmetic is Arithmetic.BFLOAT16:
        rows, scale = vectors.bfloat16(), torch.ones(len(vectors))
    else:
        scale = vectors.abs().amax(1) / 127  # what one unit stands for
        quotient = vectors / torch.where(scale > 0, scale, 1.0)[:, None]
        rows = quotient.round_().clamp_(-127, 127).to(torch.int8)
        # torch reads a transposed single column as something else, and processors add four products at a time.
        rows = torch.nn.functional.pad(rows, (0, -rows.shape[1] % _INT8_WIDTH))
    real = rows[:, : vectors.shape[1]].double() * scale.double()[:, None]
    lost = torch.linalg.vector_norm(vectors.double() - real, dim=1)
    return Narrowed(rows, scale, torch.linalg.vector_norm(real, dim=1), lost)


@dataclass(frozen=True)
class Screen:
    """The items of a catalogue in tiles, narrowed: of tile t the items bounds[t]..bounds[t+1]-1.

    rows: (I, d). step: (I,), see `Narrowed.scale`. norm: (I,), no vector is longer. lost_share: (T,), what a vector
    of the tile lacks, at most, as a share of its norm. largest_norm, largest_bias: (T,), of the tile.
    """

    arithmetic: Arithmetic
    bounds: NDArray[np.int64]
    rows: Tensor
    step: NDArray[np.float32]
    norm: NDArray[np.float32]
    lost_share: NDArray[np.float64]
    largest_norm: NDArray[np.float64]
    largest_bias: NDArray[np.float64]

    @classmethod
    def create(cls, vectors: Tensor, bias: Tensor, arithmetic: Arithmetic, tile_items: int) -> Screen:
        """vectors: (I, d) float32, in the order in which they are visited. bias: (I,) float32."""
        n_items = len(vectors)
        bounds = np.append(np.arange(0, n_items, tile_items), n_items)
        rows = vectors
        if arithmetic is not Arithmetic.FLOAT32:
            example = narrow(vectors[:1], arithmetic).rows
            rows = torch.empty(n_items, example.shape[1], dtype=example.dtype)
        step, norm = np.empty(n_items, np.float32), np.empty(n_items, np.float32)
        tiles = []
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            narrowed = narrow(vectors[start:stop], arithmetic)
            if rows is not vectors:
                rows[start:stop] = narrowed.rows
            step[start:stop] = narrowed.scale
            norm[start:stop] = norms_from_above(vectors[start:stop])
            share = narrowed.lost.numpy() / norm[start:stop]
            tiles.append((share.max(), norm[start:stop].max(), float(bias[start:stop].abs().max())))
        lost_share, largest_norm, largest_bias = np.array(tiles, dtype=np.float64).reshape(-1, 3).T
        return cls(arithmetic, bounds, rows, step, norm, lost_share, largest_norm, largest_bias)

    @property
    def hidden(self) -> np.int32 | np.float32:
        """What marks a pair that must not be listed, in the products' type."""
        return _HIDDEN_INTEGER if self.arithmetic is Arithmetic.INT8 else _HIDDEN_FLOAT

    def errors(self, users: Narrowed, largest_addition: NDArray[np.float64]) -> tuple[_Errors, _Errors]:
        """(T, B) each, e and m: a first score of a user in a tile is within e |v| + m of the reference score."""
        n = self.rows.shape[1] + 3
        rounding = _AROUND
        if self.arithmetic is not Arithmetic.INT8:
            rounding += n * _UNIT_ROUNDOFF / (1 - n * _UNIT_ROUNDOFF)
        if self.arithmetic is Arithmetic.BFLOAT16:
            rounding += 2.0**-8  # of the product, when it is stored
        own, lacking = users.norm.numpy(), users.lost.numpy()
        error = lacking + np.outer(self.lost_share, own) + rounding * np.outer(1 + self.lost_share, own + lacking)
        margin = rounding * (self.largest_bias[:, None] + largest_addition) + n * 2.0**-124
        more = 1 + 2.0**-20
        return (error * more).astype(np.float32), (margin * more).astype(np.float32)

    def multiply(self, users: Tensor, tile: int, products: Tensor, narrow_products: Tensor | None) -> Tensor:
        """(R, n) products of narrowed users with the items of a tile, in `products`' memory."""
        items = self.rows[int(self.bounds[tile]) : int(self.bounds[tile + 1])]
        return multiply_into(users, items, products, narrow_products)


def norms_from_above(vectors: Tensor) -> NDArray[np.float32]:
    """(N,): no vector is longer; never zero."""
    norms = torch.linalg.vector_norm(vectors, dim=1) * (1 + 2.0**-16) + torch.finfo(torch.float32).tiny
    upwards: NDArray[np.float32] = norms.numpy()
    return upwards


def multiply_into(users: Tensor, items: Tensor, products: Tensor, narrow_products: Tensor | None) -> Tensor:
    """users @ items.T in the flat int32 or float32 memory of `products`; bfloat16 takes a buffer of its own besides."""
    shape = (len(users), len(items))
    out = products[: shape[0] * shape[1]].view(shape)
    if users.dtype is torch.int8:
        # Private, but the one product of int8 with int32 sums in torch; `arithmetic` tries it before it is relied on.
        return torch._int_mm(users, items.t(), out=out)
    if narrow_products is None:
        return torch.mm(users, items.t(), out=out)
    return out.copy_(torch.mm(users, items.t(), out=narrow_products[: out.numel()].view(shape)))
