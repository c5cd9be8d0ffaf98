"""What a scoring worker needs, as bytes: the packed model, the vectors of all items, their ids and who may be shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor

from recbatch.model.artifact import Artifact, pack, unpack
from recbatch.model.fusion import Popularity
from recbatch.model.histories import Sequences
from recbatch.model.items import ItemFeatures
from recbatch.ranking.topk import ItemMatrix
from recbatch.scoring.explain import measure_kappa

_ITEMS = "items.safetensors"


@dataclass(frozen=True)
class Scorer:
    """A model ready to score.

    items: every item of the index. eligible: (I,) bool, those that may be recommended. kappa: see `explain`.
    amounts: (2, 2) float32, (a, b) each for price and quantity: a x + b is the value as the model was trained on it.
    """

    artifact: Artifact
    items: ItemMatrix
    eligible: Tensor
    item_ids: pa.Array
    kappa: Tensor
    amounts: Tensor

    @classmethod
    def create(
        cls,
        artifact: Artifact,
        features: ItemFeatures,
        popularity: Popularity,
        item_ids: list[str],
        eligible: NDArray[np.bool_],
        sample: pa.RecordBatch,
        amounts: Tensor,
    ) -> Scorer:
        """Compute the items' vectors and biases once, and the model's kappa on the histories of the users of `sample`.

        Ties are broken by item id in UTF-8 byte order, never by item_idx.
        """
        vectors, bias = artifact.model.item_vectors(features)
        if artifact.fusion is not None:
            bias = artifact.fusion.bias(bias, popularity)
        return cls(
            artifact,
            ItemMatrix(vectors, bias, _tie_rank(item_ids)),
            torch.from_numpy(eligible),
            pa.array(item_ids, pa.string()),
            measure_kappa(artifact.model, vectors, as_trained(Sequences.from_arrow(sample), amounts)),
            amounts,
        )

    def histories(self, batch: pa.RecordBatch) -> Sequences:
        """The behaviours of a batch of `user_sequences` rows, in the units of the model."""
        return as_trained(Sequences.from_arrow(batch), self.amounts)

    def to_bytes(self) -> dict[str, bytes]:
        """File name -> content, for `from_bytes` in another process."""
        _, offsets, data = self.item_ids.buffers()
        tensors = {
            "vectors": self.items.vectors,
            "bias": self.items.bias,
            "tie_rank": torch.from_numpy(self.items.tie_rank),
            "eligible": self.eligible,
            "kappa": self.kappa,
            "amounts": self.amounts,
            "id_offsets": torch.from_numpy(np.frombuffer(offsets, np.int32)[: len(self.item_ids) + 1].copy()),
            "id_bytes": torch.from_numpy(np.frombuffer(data or b"", np.uint8).copy()),
        }
        return pack(self.artifact) | {_ITEMS: write_tensors(tensors)}

    @classmethod
    def from_bytes(cls, files: dict[str, bytes], origin: str) -> Scorer:
        """Raises ModelError as `artifact.unpack` does; `origin` names the model in it."""
        tensors = read_tensors(files[_ITEMS])
        offsets, data = tensors["id_offsets"].numpy(), tensors["id_bytes"].numpy()
        ids = pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))
        items = ItemMatrix(tensors["vectors"], tensors["bias"], tensors["tie_rank"])
        return cls(unpack(files, origin), items, tensors["eligible"], ids, tensors["kappa"], tensors["amounts"])


def as_trained(histories: Sequences, amounts: Tensor) -> Sequences:
    """Price and quantity in the units that the model was trained in; 0, a missing value, stays 0."""
    columns = dict(histories.columns)
    for name, (a, b) in zip(("price", "quantity"), amounts.tolist(), strict=True):
        if (a, b) != (1.0, 0.0):
            values = columns[name]
            columns[name] = np.where(values == 0, values, a * values + b).astype(np.float32)
    return Sequences(histories.offsets, columns)


def _tie_rank(item_ids: list[str]) -> Tensor:
    """(I,): the place of every item among all ids in UTF-8 byte order."""
    order = np.array(sorted(range(len(item_ids)), key=[item_id.encode() for item_id in item_ids].__getitem__))
    rank = np.empty(len(item_ids), dtype=np.int64)
    rank[order.astype(np.int64)] = np.arange(len(item_ids))
    return torch.from_numpy(rank)
