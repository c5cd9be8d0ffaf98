"""Item vectors and biases from ids and attributes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_INIT = 0.02
_NO_VECTORS = torch.zeros(0, 0)


@dataclass(frozen=True)
class ItemFeatures:
    """Attributes of I items, row = item_idx.

    categories: a field each (indptr (I + 1,) int64, codes int64): the codes of item i in this field; 0 = missing.
    numbers: (I, m) float32, normalised. vectors: (I, v) float32, given vectors of norm 1 one after the other, zeros
    where missing; without rows where no item has one.
    """

    categories: tuple[tuple[Tensor, Tensor], ...]
    numbers: Tensor
    vectors: Tensor = _NO_VECTORS

    @classmethod
    def from_arrow(cls, table: pa.Table) -> ItemFeatures:
        """From the rows of `item_features` in any order. Raises ValueError unless item_idx is dense, 0..I-1."""
        table = table.sort_by("item_idx").combine_chunks()
        n_items = len(table)
        if not np.array_equal(table["item_idx"].to_numpy(), np.arange(n_items)):
            raise ValueError(f"item_idx of the {n_items} rows of item_features is not 0..{n_items - 1}")
        if n_items == 0:
            return cls((), torch.zeros(0, 0))
        items = table["categories"].chunk(0)  # list<list<int32>>: items of fields of codes
        bounds = np.asarray(items.flatten().offsets, dtype=np.int64)
        codes = items.flatten().flatten().to_numpy().astype(np.int64)
        n_fields = len(bounds[:-1]) // n_items
        sizes = np.diff(bounds).reshape(n_items, n_fields)
        field_of_code = np.repeat(np.tile(np.arange(n_fields), n_items), sizes.ravel())
        categories = tuple(
            (
                torch.from_numpy(np.concatenate([[0], sizes[:, f].cumsum()])),
                torch.from_numpy(codes[field_of_code == f]),
            )
            for f in range(n_fields)
        )
        numbers, vectors = (
            torch.from_numpy(table[name].chunk(0).flatten().to_numpy().astype(np.float32).reshape(n_items, -1))
            for name in ("numbers", "vectors")
        )
        return cls(categories, numbers, vectors)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def field_sizes(self) -> tuple[int, ...]:
        """A field each: one more than its largest code."""
        return tuple(int(codes.max()) + 1 if len(codes) else 1 for _, codes in self.categories)

    @cached_property
    def described(self) -> Tensor:
        """(I,) bool: whether its attributes give an item a vector; codes and numbers of 0 add nothing to it."""
        described = (self.numbers != 0).any(1)
        if len(self.vectors):
            described = described | (self.vectors != 0).any(1)
        for indptr, codes in self.categories:
            present = torch.cat([codes.new_zeros(1), (codes != 0).cumsum(0)])
            described = described | (present[indptr[1:]] > present[indptr[:-1]])
        return described

    def bags(self, field: int, item_idx: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of some items in one field, flat, and where each item's begin."""
        indptr, codes = self.categories[field]
        start, size = indptr[item_idx], indptr.diff()[item_idx]
        begin = size.cumsum(0) - size
        at = torch.arange(int(size.sum())) + torch.repeat_interleave(start - begin, size)
        return codes[at], begin


class ItemTower(nn.Module):
    """v_i = id_i + Σ_field gate ⊙ mean embedding of the item's codes + W numbers + V vectors, and a bias made likewise.

    The gate of a field differs between items whose id was trained and items known by their attributes alone: a new
    item, one without interactions, or one whose id is dropped while training.
    """

    trained: Tensor

    def __init__(
        self,
        n_items: int,
        field_sizes: tuple[int, ...],
        n_numbers: int,
        dim: int,
        id_dropout: float,
        n_vector: int = 0,
    ) -> None:
        super().__init__()
        # A share of the items is shown without their id while training, so that attributes learn to stand alone. One
        # without attributes keeps its id: nothing would be left of it but noise.
        self._id_dropout = id_dropout
        self.id = nn.Embedding(n_items, dim)
        # padding_idx: a missing value (code 0) adds nothing
        bags = [nn.EmbeddingBag(size, dim, mode="mean", padding_idx=0) for size in field_sizes]
        self.fields = nn.ModuleList(bags)
        self.gate = nn.Parameter(torch.ones(2, len(field_sizes), dim))  # [0]: id unknown, [1]: id known
        self.numbers = nn.Linear(n_numbers, dim, bias=False) if n_numbers else None
        self.vectors = nn.Linear(n_vector, dim, bias=False) if n_vector else None
        self.id_bias = nn.Parameter(torch.zeros(n_items))
        self.attribute_bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("trained", torch.zeros(n_items, dtype=torch.bool))
        self._field_sizes = field_sizes
        # What has norm 1 is projected to the size of an embedding by weights as large as an embedding's.
        linear = [one.weight for one in (self.numbers, self.vectors) if one is not None]
        for weight in (self.id.weight, *(bag.weight for bag in bags), *linear):
            nn.init.normal_(weight, std=_INIT)
        with torch.no_grad():
            for bag in bags:
                bag.weight[0] = 0.0

    def forward(self, features: ItemFeatures, item_idx: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (n, d) and biases (n,) of n items; an item_idx beyond the trained vocabulary has attributes only."""
        n_items = len(self.trained)
        row = item_idx.clamp(max=n_items - 1)
        known = (item_idx < n_items) & self.trained[row]
        if self.training:
            dropped = (torch.rand(len(item_idx)) < self._id_dropout) & features.described[item_idx]
            known = known & ~dropped
        attributes = torch.zeros(len(item_idx), self.id.embedding_dim)
        for f in range(len(self.fields)):
            attributes = attributes + self._field(f, *features.bags(f, item_idx), known)
        if self.numbers is not None:
            attributes = attributes + self.numbers(features.numbers[item_idx])
        if self.vectors is not None:
            attributes = attributes + self.vectors(features.vectors[item_idx])
        # All items in their order, as in every step of the full softmax, need not be looked up.
        whole = len(row) == n_items and torch.equal(row, torch.arange(n_items))
        ids, id_bias = (self.id.weight, self.id_bias) if whole else (self.id(row), self.id_bias[row])
        present = known.to(attributes.dtype)
        vectors = torch.addcmul(attributes, ids, present[:, None])
        return vectors, id_bias * present + attributes @ self.attribute_bias

    def _field(self, f: int, codes: Tensor, begin: Tensor, known: Tensor) -> Tensor:
        """(n, d): gate ⊙ mean embedding of the codes of a field.

        The two gates are multiplied into the table and not into the means, because items outnumber values: a third of
        the passes over a matrix of all items.
        """
        size = self._field_sizes[f]
        weight: Tensor = self.fields[f].weight  # type: ignore[assignment]
        gated = (self.gate[:, f, None] * weight).flatten(0, 1)  # (2 size, d): of ids unknown, and known
        codes = codes.masked_fill(codes >= size, 0)  # a value newer than the model
        of_known = torch.repeat_interleave(known, begin.diff(append=begin.new_tensor([len(codes)])))
        # 0 is missing in both halves of the table
        return F.embedding_bag(codes + size * (of_known & (codes > 0)), gated, begin, mode="mean", padding_idx=0)
