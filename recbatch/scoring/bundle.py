"""What a scoring worker needs, as one file of tensors: the encoder, all items in visiting order, and their neighbours.

Items are numbered by their place in the catalogue here; `position` takes an item_idx there. The file is safetensors: it
is read from a broadcast, or mapped into memory, so that the workers of a host share one copy of its pages.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from safetensors.torch import save as write_tensors
from safetensors.torch import save_file as write_file
from torch import Tensor

from recbatch.config.learning import ModelSection
from recbatch.model.artifact import Artifact
from recbatch.model.fusion import Fusion, Popularity
from recbatch.model.histories import Sequences
from recbatch.model.items import ItemFeatures
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender, Shape
from recbatch.ranking.arithmetic import fastest
from recbatch.ranking.catalogue import Catalogue, visiting_order
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import ItemMatrix
from recbatch.transforms.parameters import Parameters

_ENCODER, _DESCRIPTION = "encoder.", "scorer"
_DTYPES = {"F32": np.float32, "F64": np.float64, "I32": np.int32, "I64": np.int64, "U8": np.uint8, "BOOL": np.bool_}


@dataclass(frozen=True)
class Scorer:
    """A model ready to score.

    catalogue: every item of the index, those that may be recommended first. position: (I,) item_idx -> place in it.
    item_ids: by place. neighbours: by place. kappa: see `explain`. amounts: what price and
    quantity are normalised by.
    """

    model: Recommender
    catalogue: Catalogue
    position: NDArray[np.int32]
    item_ids: pa.Array
    neighbours: Neighbours
    fusion: Fusion | None
    kappa: Tensor
    amounts: tuple[Parameters, Parameters]
    _parts: dict[tuple[int, int], tuple[Catalogue, int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def create(
        cls,
        artifact: Artifact,
        features: ItemFeatures,
        popularity: Popularity,
        item_ids: list[str],
        eligible: NDArray[np.bool_],
        tile_items: int,
    ) -> Scorer:
        """Compute the items' vectors and biases once.

        Ties are broken by item id in UTF-8 byte order, never by item_idx.
        """
        vectors, bias = artifact.model.item_vectors(features)
        if artifact.fusion is not None:
            bias = artifact.fusion.bias(bias, popularity)
        items = ItemMatrix(vectors, bias, _tie_rank(item_ids))
        order = visiting_order(items, torch.from_numpy(eligible), artifact.typical_norm)
        position = np.empty(len(order), np.int32)
        position[order] = np.arange(len(order), dtype=np.int32)
        at = torch.from_numpy(order)
        ordered = ItemMatrix(vectors[at], bias[at], torch.from_numpy(items.tie_rank[order]))
        return cls(
            _without_items(artifact.model.config, artifact.model.shape, artifact.model.state_dict()),
            _catalogue(ordered, int(eligible.sum()), artifact.typical_norm, tile_items),
            position,
            pa.array(item_ids, pa.string()).take(pa.array(order)),
            artifact.neighbours.renumbered(order, position),
            artifact.fusion,
            torch.tensor(artifact.kappa),
            artifact.amounts,
        )

    def part(self, number: int, of: int) -> tuple[Catalogue, int]:
        """As `Catalogue.part`; the last one is kept, so that its first pass is prepared once for many batches."""
        key = (number, of)
        if key not in self._parts:
            self._parts.clear()
            self._parts[key] = self.catalogue.part(number, of)
        return self._parts[key]

    def histories(self, batch: pa.RecordBatch) -> Sequences:
        """The behaviours of a batch of `user_sequences` rows: items by place, amounts normalised."""
        histories = Sequences.from_arrow(batch).normalised(*self.amounts)
        return Sequences(
            histories.offsets, histories.columns | {"item_idx": self.position[histories.columns["item_idx"]]}
        )

    @cached_property
    def digest(self) -> str:
        """What names a scorer: two of the same digest give the same lists."""
        with ThreadPoolExecutor() as pool:  # hashing a large catalogue takes a second of one core
            parts = list(pool.map(_hash, self._tensors.items()))
        return hashlib.sha256("".join([*parts, self._description]).encode()).hexdigest()

    @property
    def n_bytes(self) -> int:
        """Of the tensors in the file for `open_scorer`."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def to_bytes(self) -> bytes:
        """The file for `open_scorer` in another process. The same scorer gives the same bytes."""
        return write_tensors(self._tensors, {_DESCRIPTION: self._description})

    def save(self, path: Path) -> None:
        """Write that file."""
        write_file(self._tensors, path, {_DESCRIPTION: self._description})

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        _, buffer, data = self.item_ids.buffers()
        items, csr, first = self.catalogue.items, self.neighbours.csr, self.item_ids.offset
        offsets = np.frombuffer(buffer, np.int32)[first : first + len(items) + 1].copy()
        # Buffers are longer than what is in them.
        ids = np.frombuffer(data or b"", np.uint8)[: offsets[-1]].copy()
        tensors = {
            "vectors": items.vectors,
            "bias": items.bias,
            "tie_rank": torch.from_numpy(items.tie_rank),
            "position": torch.from_numpy(self.position),
            "kappa": self.kappa,
            "id_offsets": torch.from_numpy(offsets),
            "id_bytes": torch.from_numpy(ids),
            "neighbour_indptr": csr.indptr,
            "neighbour_indices": csr.indices,
            "neighbour_weights": self.neighbours.weights,
        }
        encoder = {_ENCODER + name: weight.contiguous() for name, weight in self.model.state_dict().items()}
        return tensors | {name: weight for name, weight in encoder.items() if weight.numel()}

    @property
    def _description(self) -> str:
        description = {
            "model": self.model.config.model_dump(),
            "n_event_types": self.model.shape.n_event_types,
            "fusion": None if self.fusion is None else asdict(self.fusion),
            "amounts": [asdict(one) for one in self.amounts],
            "eligible": self.catalogue.eligible,
            "typical_norm": self.catalogue.typical_norm,
            "tile_items": self.catalogue.tile_items,
        }
        return json.dumps(description, sort_keys=True)  # one entry: safetensors writes several in any order


def open_scorer(source: bytes | Path) -> Scorer:
    """The scorer in the bytes of `Scorer.to_bytes`, or in a file of them, which is mapped and not read."""
    content = np.memmap(source, np.uint8, "c") if isinstance(source, Path) else np.frombuffer(source, np.uint8)
    tensors, description = _parse(content)
    shape = Shape(0, (), 0, description["n_event_types"])
    config = ModelSection.model_validate(description["model"])
    state = {name.removeprefix(_ENCODER): value for name, value in tensors.items() if name.startswith(_ENCODER)}
    # Trusted, as the neighbours: they were checked where they were made, and a check would read all into memory.
    items = ItemMatrix.trusted(tensors["vectors"], tensors["bias"], tensors["tie_rank"])
    offsets, data = tensors["id_offsets"].numpy(), tensors["id_bytes"].numpy()
    csr = Csr(tensors["neighbour_indptr"], tensors["neighbour_indices"], tensors["neighbour_weights"], trusted=True)
    fusion = description["fusion"]
    price, quantity = (Parameters(**one) for one in description["amounts"])
    return Scorer(
        _without_items(config, shape, state),
        _catalogue(items, description["eligible"], description["typical_norm"], description["tile_items"]),
        tensors["position"].numpy(),
        pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data)),
        Neighbours(csr),
        None if fusion is None else Fusion(**fusion),
        tensors["kappa"],
        (price, quantity),
    )


def _hash(tensor: tuple[str, Tensor]) -> str:
    name, values = tensor
    content = hashlib.sha256(values.numpy().reshape(-1).view(np.uint8).data)
    return f"{name} {values.dtype} {tuple(values.shape)} {content.hexdigest()}\n"


def _catalogue(items: ItemMatrix, eligible: int, typical_norm: float, tile_items: int) -> Catalogue:
    masks = np.empty((0, len(items)), np.bool_)
    return Catalogue(items, None, eligible, typical_norm, masks, fastest(items.vectors.shape[1]), tile_items)


def _without_items(config: ModelSection, shape: Shape, state: dict[str, Tensor]) -> Recommender:
    """The model without its item tower, whose vectors are computed already and which is as large as they are."""
    model = Recommender(config, Shape(0, (), 0, shape.n_event_types))
    kept = {name: weight for name, weight in state.items() if not name.startswith("items.")}
    missing = model.load_state_dict(kept, strict=False)
    if missing.unexpected_keys or any(not name.startswith("items.") for name in missing.missing_keys):
        raise ValueError(f"encoder lacks {missing.missing_keys} or has too much {missing.unexpected_keys}")
    return model.eval()


def _parse(content: NDArray[np.uint8]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, as views of a safetensors file's bytes, and its description."""
    size = int(content[:8].view("<u8")[0])
    header: dict[str, Any] = json.loads(content[8 : 8 + size].tobytes())
    description = json.loads(header.pop("__metadata__")[_DESCRIPTION])
    tensors = {}
    for name, entry in header.items():
        low, high = (8 + size + offset for offset in entry["data_offsets"])
        values = content[low:high].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values if values.flags.writeable else values.copy())
    return tensors, description


def _tie_rank(item_ids: list[str]) -> Tensor:
    """(I,): the place of every item among all ids in UTF-8 byte order."""
    order = np.array(sorted(range(len(item_ids)), key=[item_id.encode() for item_id in item_ids].__getitem__))
    rank = np.empty(len(item_ids), dtype=np.int64)
    rank[order.astype(np.int64)] = np.arange(len(item_ids))
    return torch.from_numpy(rank)
