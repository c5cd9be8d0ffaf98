"""The recommender network: item tower, behaviour embedding and sequence encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbatch.config.learning import ModelSection
from recbatch.model.encoders import ConvEncoder
from recbatch.model.histories import Histories, Sequences
from recbatch.model.items import ItemFeatures, ItemTower
from recbatch.model.other_encoders import ConvPoolEncoder, GruEncoder

_GAP_BUCKETS = 33  # a gap of s seconds is in bucket bit_length(s), at most 32
_FIXED_USERS = 64
_SHORTEST_CLASS = 8


@dataclass(frozen=True)
class Shape:
    """The sizes that, with the model section, determine every weight's shape."""

    n_items: int
    field_sizes: tuple[int, ...]
    n_numbers: int
    n_event_types: int
    n_vector: int = 0


class Recommender(nn.Module):
    """score(u, i) = u . v_i + b_i, with u from the user's last `context_length` behaviours."""

    def __init__(self, config: ModelSection, shape: Shape) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        dim = config.dim
        self.items = ItemTower(
            shape.n_items, shape.field_sizes, shape.n_numbers, dim, config.id_dropout, shape.n_vector
        )
        self.event_type = nn.Embedding(shape.n_event_types, dim)
        self.gap = nn.Embedding(_GAP_BUCKETS + 1, dim)  # the last row: no behaviour before
        self.amounts = nn.Linear(2, dim, bias=False)  # price, quantity
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(dim)
        self.encoder = _make_encoder(config)
        for weight in (self.event_type.weight, self.gap.weight, self.amounts.weight):
            nn.init.normal_(weight, std=0.02 * dim**0.5)  # the scale of an item vector in `encode_positions`

    def item_vectors(self, features: ItemFeatures) -> tuple[Tensor, Tensor]:
        """Vectors (I, d) and biases (I,) of all items of `features`, as they are scored."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                vectors, bias = self.items(features, torch.arange(len(features)))
        finally:
            self.train(training)
        return vectors, bias

    def encode_positions(self, histories: Histories, item_vectors: Tensor) -> Tensor:
        """(B, L, d): the user vector after every position. histories.item_idx are rows of item_vectors (n, d)."""
        return self.encoder(self._embed(histories, item_vectors))  # type: ignore[no-any-return]

    def _embed(self, histories: Histories, item_vectors: Tensor) -> Tensor:
        x = F.embedding(histories.item_idx, item_vectors) * self.config.dim**0.5
        x = x + self.event_type(histories.event_type) + self.gap(_gap_bucket(histories.event_time))
        x = x + self.amounts(torch.stack([histories.price, histories.quantity], dim=-1))
        return self.dropout(self.norm(x))  # type: ignore[no-any-return]

    def encode(self, histories: Histories, item_vectors: Tensor) -> Tensor:
        """(B, d): the user vector after the last behaviour; zero for a user without any."""
        last = (histories.lengths - 1).clamp(min=0)
        states = self.encoder.at(self._embed(histories, item_vectors), last)
        return states * (histories.lengths > 0)[:, None]


def _make_encoder(config: ModelSection) -> ConvEncoder | ConvPoolEncoder | GruEncoder:
    if config.encoder == "gru":
        return GruEncoder(config.dim, config.blocks, config.dropout)
    if config.encoder == "conv_pool":
        return ConvPoolEncoder(config.dim, config.blocks, config.dropout)
    return ConvEncoder(config.dim, config.blocks, config.context_length, config.short_kernel, config.dropout)


def user_vectors(model: Recommender, item_vectors: Tensor, sequences: Sequences) -> Tensor:
    """(N, d) vectors of all users of `sequences`, from their last `context_length` behaviours.

    Encoded in fixed shapes on one thread: 64 rows (zero-filled) of the length class of the user's own length. So every
    bit of a user's vector depends on that user alone, never on who shares the batch.
    """
    start, stop = sequences.last(model.config.context_length)
    lengths = stop - start
    vectors = torch.zeros(len(sequences), model.config.dim)
    threads, training = torch.get_num_threads(), model.training
    torch.set_num_threads(1)
    model.eval()
    try:
        with torch.inference_mode():
            shorter = 0
            for width in _length_classes(model.config.context_length):
                members = np.flatnonzero((lengths > shorter) & (lengths <= width))
                shorter = width
                for begin in range(0, len(members), _FIXED_USERS):
                    part = members[begin : begin + _FIXED_USERS]
                    low, high = np.zeros((2, _FIXED_USERS), dtype=np.int64)
                    low[: len(part)], high[: len(part)] = start[part], stop[part]
                    encoded = model.encode(sequences.pad(low, high, width), item_vectors)
                    vectors[torch.from_numpy(part)] = encoded[: len(part)]
    finally:
        torch.set_num_threads(threads)
        model.train(training)
    return vectors


def _length_classes(context_length: int) -> list[int]:
    classes = []
    width = _SHORTEST_CLASS
    while width < context_length:
        classes.append(width)
        width *= 2
    return [*classes, context_length]


def _gap_bucket(event_time: Tensor) -> Tensor:
    """(B, L): the bit length of the seconds since the behaviour before; the first position has its own bucket."""
    gap = event_time.diff(dim=1).clamp(min=0)
    bucket = torch.frexp(gap.double()).exponent.clamp(max=_GAP_BUCKETS - 1).long()
    return F.pad(bucket, (1, 0), value=_GAP_BUCKETS)
