"""Specification of the model folder: what goes in comes out, and nothing damaged or foreign is used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from recbatch.config.learning import ModelSection
from recbatch.errors import ModelError
from recbatch.model.artifact import DESCRIPTION, NEIGHBOURS, WEIGHTS, Artifact, hash_item_ids, load, pack, save, unpack
from recbatch.model.fusion import Fusion
from recbatch.model.neighbours import Neighbours
from recbatch.model.recommender import Recommender, Shape
from recbatch.ranking.csr import Csr

ITEM_IDS = ["b", "a", "ü", "a b", "10"]


@pytest.fixture
def artifact() -> Artifact:
    torch.manual_seed(4)
    model = Recommender(ModelSection(dim=8, context_length=6), Shape(5, (3, 2), 1, 2)).eval()
    model.items.trained[:4] = True
    neighbours = Neighbours(
        Csr(torch.tensor([0, 2, 2, 2, 3, 3]), torch.tensor([1, 4, 0], dtype=torch.int32), torch.tensor([1.0, 0.5, 2.0]))
    )
    return Artifact(
        model,
        neighbours,
        Fusion(lam=0.5, eps=0.1, behaviours=20, decay=0.9),
        hash_item_ids(ITEM_IDS),
        normalization={"price": {"center": 1.5, "scale": 0.1}},
        data_versions={"events": 3},
        metrics={"ndcg@10": 0.25},
        kappa=(0.5, 0.25),
        typical_norm=6.5,
    )


def test_what_is_saved_is_loaded(artifact: Artifact, tmp_path: Path) -> None:
    save(artifact, tmp_path / "models" / "v1")
    loaded = load(tmp_path / "models" / "v1", [*ITEM_IDS, "newer"])
    for name, weight in artifact.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight)
    assert not loaded.model.training
    assert (loaded.model.config, loaded.model.shape) == (artifact.model.config, artifact.model.shape)
    for field in (
        "fusion",
        "item_ids_sha256",
        "normalization",
        "data_versions",
        "metrics",
        "kappa",
        "typical_norm",
        "code_version",
    ):
        assert getattr(loaded, field) == getattr(artifact, field)
    csr, expected = loaded.neighbours.csr, artifact.neighbours.csr
    assert torch.equal(csr.indptr, expected.indptr)
    assert torch.equal(csr.indices, expected.indices)
    assert csr.values is not None
    assert csr.values.tolist() == [1.0, 0.5, 2.0]


def test_saved_twice_is_the_same_byte_for_byte(artifact: Artifact, tmp_path: Path) -> None:
    save(artifact, tmp_path / "one")
    save(load(tmp_path / "one", ITEM_IDS), tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted([WEIGHTS, DESCRIPTION, NEIGHBOURS])
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_model_without_vectors_is_described_as_before_there_were_any(artifact: Artifact) -> None:
    files = pack(artifact)
    shape = {"n_items": 5, "field_sizes": [3, 2], "n_numbers": 1, "n_event_types": 2}
    assert json.loads(files[DESCRIPTION])["shape"] == shape
    assert unpack(files, "old").model.shape == Shape(5, (3, 2), 1, 2, n_vector=0)


def test_a_model_with_vectors_is_loaded_with_their_projection(artifact: Artifact) -> None:
    model = Recommender(artifact.model.config, replace(artifact.model.shape, n_vector=7)).eval()
    loaded = unpack(pack(replace(artifact, model=model)), "v1").model
    assert loaded.shape.n_vector == 7
    assert loaded.items.vectors is not None
    assert model.items.vectors is not None
    assert torch.equal(loaded.items.vectors.weight, model.items.vectors.weight)


def test_a_bare_network_has_no_fusion(artifact: Artifact) -> None:
    assert unpack(pack(replace(artifact, fusion=None)), "v1").fusion is None


def test_a_version_is_never_written_twice(artifact: Artifact, tmp_path: Path) -> None:
    save(artifact, tmp_path / "v1")
    with pytest.raises(ModelError, match="exists already"):
        save(artifact, tmp_path / "v1")


def test_hash_tells_ids_and_their_borders_apart() -> None:
    assert hash_item_ids(["ab", "c"]) != hash_item_ids(["a", "bc"])
    assert hash_item_ids(["a", "b"]) != hash_item_ids(["b", "a"])


@pytest.mark.parametrize(
    ("ids", "message"),
    [(ITEM_IDS[:4], "knows 5 items, the item index has 4"), (["a", "b", *ITEM_IDS[2:]], "are not those")],
)
def test_another_item_index_is_refused(ids: list[str], message: str, artifact: Artifact, tmp_path: Path) -> None:
    save(artifact, tmp_path / "v1")
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "v1", ids)


@pytest.mark.parametrize("name", [WEIGHTS, DESCRIPTION, NEIGHBOURS])
def test_damaged_and_missing_files_are_refused(name: str, artifact: Artifact, tmp_path: Path) -> None:
    save(artifact, tmp_path / "v1")
    file = tmp_path / "v1" / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path / "v1", ITEM_IDS)
    file.unlink()
    with pytest.raises(ModelError, match=f"lacks {name}"):
        load(tmp_path / "v1", ITEM_IDS)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lacks"):
        load(tmp_path / "nothing", ITEM_IDS)


@pytest.mark.parametrize(
    ("name", "tensor", "value", "message"),
    [
        (WEIGHTS, "items.id_bias", torch.zeros(4), r"'items.id_bias' is \(4,\), expected \(5,\)"),
        (WEIGHTS, "items.id_bias", torch.full((5,), torch.nan), "NaN"),
        (WEIGHTS, "surplus", torch.zeros(1), "other tensors"),
        (NEIGHBOURS, "indptr", torch.zeros(5, dtype=torch.int64), "expected"),
        (NEIGHBOURS, "indptr", torch.tensor([0, 2, 1, 2, 3, 3]), "boundaries"),
        (NEIGHBOURS, "indices", torch.tensor([1, 5, 0], dtype=torch.int32), r"outside 0\.\.4"),
        (NEIGHBOURS, "weights", torch.tensor([1.0, torch.inf, 0.0]), "infinity"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    name: str, tensor: str, value: torch.Tensor, message: str, artifact: Artifact, tmp_path: Path
) -> None:
    save(artifact, tmp_path / "v1")
    tensors = load_file(tmp_path / "v1" / name)
    save_file({**tensors, tensor: value}, tmp_path / "v1" / name)
    with pytest.raises(ModelError, match=message):
        load(tmp_path / "v1", ITEM_IDS)


def test_an_unknown_setting_is_refused(artifact: Artifact) -> None:
    files = pack(artifact)
    description = json.loads(files[DESCRIPTION])
    description["model"]["encoder"] = "oracle"
    with pytest.raises(ModelError, match="cannot be read"):
        unpack({**files, DESCRIPTION: json.dumps(description).encode()}, "v1")


def test_metrics_that_are_not_numbers_are_not_written(artifact: Artifact) -> None:
    with pytest.raises(ValueError, match="JSON"):
        pack(replace(artifact, metrics={"ndcg@10": float(np.nan)}))
