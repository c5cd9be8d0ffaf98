"""A trained model as a folder: `model.safetensors`, `model.json`, `neighbours.safetensors`. Never pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors

from recbatch import __version__
from recbatch.config.learning import ModelSection
from recbatch.errors import ModelError
from recbatch.model.fusion import Fusion
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender, Shape
from recbatch.ranking.csr import Csr
from recbatch.transforms.parameters import Parameters

WEIGHTS, DESCRIPTION, NEIGHBOURS = "model.safetensors", "model.json", "neighbours.safetensors"
_TRAIN_AGAIN = "train again, or restore the folder from where it was copied"


@dataclass(frozen=True)
class Artifact:
    """Everything that scoring needs, and where it came from.

    item_ids_sha256: `hash_item_ids` of the first model.shape.n_items ids. fusion: None scores with the bare network.
    normalization: the fields of `Parameters` by `<table>.<column>`; events.price and events.quantity are among them.
    data_versions, metrics: plain JSON values, kept as given. kappa: by position from the end, what the
    network's score loses without a behaviour (see `scoring.explain`). typical_norm: of a user vector. Both are measured
    on users of the training, so that they change with the model alone.
    """

    model: Recommender
    neighbours: Neighbours
    fusion: Fusion | None
    item_ids_sha256: str
    normalization: Mapping[str, Any]
    data_versions: Mapping[str, Any]
    metrics: Mapping[str, float]
    kappa: tuple[float, ...] = ()
    typical_norm: float = 1.0
    code_version: str = __version__

    @property
    def amounts(self) -> tuple[Parameters, Parameters]:
        """What prices and quantities of behaviours are normalised by."""
        price, quantity = (Parameters(**self.normalization[f"events.{name}"]) for name in ("price", "quantity"))
        return price, quantity


def hash_item_ids(item_ids: Sequence[str]) -> str:
    """sha256 over the ids in the order of item_idx, each with its length in bytes before it."""
    digest = hashlib.sha256()
    for item_id in item_ids:
        encoded = item_id.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.hexdigest()


def pack(artifact: Artifact) -> dict[str, bytes]:
    """File name -> content. The same artifact gives the same bytes."""
    csr = artifact.neighbours.csr
    if csr.values is None:
        raise ValueError("neighbours need weights")
    state = {name: weight.contiguous() for name, weight in artifact.model.state_dict().items()}
    tensors = {
        WEIGHTS: write_tensors(state),
        NEIGHBOURS: write_tensors({"indptr": csr.indptr, "indices": csr.indices, "weights": csr.values}),
    }
    description = {
        "model": artifact.model.config.model_dump(),
        # Without vectors a model is described as before there were any.
        "shape": {name: size for name, size in asdict(artifact.model.shape).items() if name != "n_vector" or size},
        "fusion": None if artifact.fusion is None else asdict(artifact.fusion),
        "item_ids_sha256": artifact.item_ids_sha256,
        "normalization": artifact.normalization,
        "data_versions": artifact.data_versions,
        "metrics": artifact.metrics,
        "kappa": artifact.kappa,
        "typical_norm": artifact.typical_norm,
        "code_version": artifact.code_version,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in tensors.items()},
    }
    text = json.dumps(description, indent=2, sort_keys=True, allow_nan=False) + "\n"
    return tensors | {DESCRIPTION: text.encode()}


def unpack(files: Mapping[str, bytes], origin: str) -> Artifact:
    """The artifact of `pack`ed files, in evaluation mode; `origin` names it in errors.

    Raises:
        ModelError: a file is missing or damaged, a tensor has another shape than the description says, or holds NaN.
    """
    missing = [name for name in (WEIGHTS, DESCRIPTION, NEIGHBOURS) if name not in files]
    if missing:
        raise ModelError(f"model '{origin}' lacks {', '.join(missing)}", remedy=_TRAIN_AGAIN)
    try:
        description = json.loads(files[DESCRIPTION])
        shape, hashes = description["shape"], description["sha256"]
        model = Recommender(
            ModelSection.model_validate(description["model"]),
            Shape(**{**shape, "field_sizes": tuple(shape["field_sizes"])}),
        )
        state, csr = read_tensors(files[WEIGHTS]), read_tensors(files[NEIGHBOURS])
        fusion = None if description["fusion"] is None else Fusion(**description["fusion"])
        provenance = {
            name: description[name]
            for name in ("item_ids_sha256", "normalization", "data_versions", "metrics", "typical_norm", "code_version")
        } | {"kappa": tuple(description["kappa"])}
    except (SafetensorError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ModelError(f"model '{origin}' cannot be read: {error}", remedy=_TRAIN_AGAIN) from error
    _check_tensors(state, {name: weight.shape for name, weight in model.state_dict().items()}, f"{origin}/{WEIGHTS}")
    model.load_state_dict(state)
    neighbours = _neighbours(csr, model.shape.n_items, f"{origin}/{NEIGHBOURS}")
    _check_content(files, hashes, origin)
    model.eval()
    return Artifact(model, neighbours, fusion, **provenance)


def save(artifact: Artifact, folder: Path) -> None:
    """Write the folder; it appears whole or not at all. Raises ModelError where it exists already."""
    if folder.exists():
        raise ModelError(
            f"model '{folder}' exists already", remedy="a model version is never written twice: name a new one"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        staged = Path(scratch) / folder.name
        staged.mkdir()
        for name, content in pack(artifact).items():
            (staged / name).write_bytes(content)
        os.replace(staged, folder)


def load(folder: Path, item_ids: Sequence[str]) -> Artifact:
    """The artifact in a folder, checked against the item index it is to be used with (ids in order of item_idx).

    The index may have grown since, never changed. Raises ModelError as `unpack` does, and where the ids differ.
    """
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} if folder.is_dir() else {}
    artifact = unpack(files, str(folder))
    n_items = artifact.model.shape.n_items
    if len(item_ids) < n_items:
        raise ModelError(
            f"model '{folder}' knows {n_items} items, the item index has {len(item_ids)}",
            remedy="use the model with the warehouse it was trained in",
        )
    if hash_item_ids(item_ids[:n_items]) != artifact.item_ids_sha256:
        raise ModelError(
            f"the first {n_items} ids of the item index are not those that model '{folder}' was trained with",
            remedy="use the model with the warehouse it was trained in, or train again",
        )
    return artifact


def _check_content(files: Mapping[str, bytes], hashes: Mapping[str, str], origin: str) -> None:
    """A flipped bit in a weight is a plausible number still; only the hash tells."""
    for name in (WEIGHTS, NEIGHBOURS):
        if hashlib.sha256(files[name]).hexdigest() != hashes[name]:
            raise ModelError(f"'{origin}/{name}' is not the file that was saved", remedy=_TRAIN_AGAIN)


def _check_tensors(state: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size], origin: str) -> None:
    if state.keys() != shapes.keys():
        raise ModelError(
            f"'{origin}' has other tensors than its description: {sorted(state.keys() ^ shapes.keys())}",
            remedy=_TRAIN_AGAIN,
        )
    for name, tensor in state.items():
        if tensor.shape != shapes[name]:
            raise ModelError(
                f"'{origin}': tensor '{name}' is {tuple(tensor.shape)}, expected {tuple(shapes[name])}",
                remedy=_TRAIN_AGAIN,
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"'{origin}': tensor '{name}' holds NaN or infinity", remedy=_TRAIN_AGAIN)


def _neighbours(tensors: Mapping[str, torch.Tensor], n_items: int, origin: str) -> Neighbours:
    entries = tensors["indices"].shape if "indices" in tensors else torch.Size([0])
    shapes = {"indptr": torch.Size([n_items + 1]), "indices": entries, "weights": entries}
    _check_tensors(tensors, shapes, origin)
    indices = tensors["indices"]
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < n_items:
        raise ModelError(f"'{origin}' names an item outside 0..{n_items - 1}", remedy=_TRAIN_AGAIN)
    try:
        return Neighbours(Csr(tensors["indptr"], indices, tensors["weights"]))
    except ValueError as error:
        raise ModelError(f"'{origin}': {error}", remedy=_TRAIN_AGAIN) from error
