"""Ragged rows (exclusions, sparse score additions, histories) as one flat tensor and its row boundaries."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Csr:
    """Rows of item_idx, strictly ascending within a row, optionally with one value an entry.

    indptr: (rows + 1,) int64, first 0, last the number of entries.
    indices: (entries,) int32.
    values: (entries,) float32, or None where an entry only marks its item.
    trusted: it comes from a loop of this project that makes ascending rows of finite values, and is not checked again.

    Raises ValueError where the three do not fit together or a row is not strictly ascending.
    """

    indptr: Tensor
    indices: Tensor
    values: Tensor | None = None
    trusted: bool = False

    def __post_init__(self) -> None:
        if self.trusted:
            return
        if self.indptr.dtype != torch.int64 or self.indices.dtype != torch.int32:
            raise ValueError(f"Csr takes int64 indptr and int32 indices, got {self.indptr.dtype}, {self.indices.dtype}")
        if self.indptr.ndim != 1 or len(self.indptr) == 0 or self.indices.ndim != 1:
            raise ValueError(f"Csr takes flat tensors, got {tuple(self.indptr.shape)} and {tuple(self.indices.shape)}")
        ends = int(self.indptr[0]), int(self.indptr[-1])
        if ends != (0, len(self.indices)) or bool((self.indptr.diff() < 0).any()):
            raise ValueError(f"Csr row boundaries do not cover its {len(self.indices)} entries")
        if self.values is not None and (self.values.shape != self.indices.shape or self.values.dtype != torch.float32):
            raise ValueError(f"Csr has {len(self.indices)} indices but values {tuple(self.values.shape)}")
        falls = self.indices[1:] <= self.indices[:-1]
        starts = self.indptr[(self.indptr > 0) & (self.indptr < len(self.indices))]
        falls[starts - 1] = False  # the step from one row's last entry to the next row's first is no fall
        if bool(falls.any()):
            raise ValueError("Csr indices must be strictly ascending within a row")

    @property
    def n_rows(self) -> int:
        return len(self.indptr) - 1

    def entry_rows(self) -> Tensor:
        """(entries,) int64: the row of every entry."""
        return torch.repeat_interleave(torch.arange(self.n_rows), self.indptr.diff(), output_size=len(self.indices))

    def between(self, low: int, high: int) -> Csr:
        """The entries of items low..high-1 as a Csr over those items, numbered from 0."""
        inside = (self.indices >= low) & (self.indices < high)
        counted = torch.cat([torch.zeros(1, dtype=torch.int64), inside.cumsum(0)])
        values = None if self.values is None else self.values[inside]
        return Csr(counted[self.indptr], self.indices[inside] - low, values, self.trusted)

    def rows(self, start: int, stop: int) -> Csr:
        """Rows start..stop-1 as a Csr of their own."""
        indptr = self.indptr[start : stop + 1]
        entries = slice(int(indptr[0]), int(indptr[-1]))
        values = None if self.values is None else self.values[entries]
        return Csr(indptr - indptr[0], self.indices[entries], values)
