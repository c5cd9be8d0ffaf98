"""One seed makes one model, byte for byte, and what was damaged or belongs to other items is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from recbatch.errors import ModelError
from recbatch.model import artifact
from recbatch.stages.inputs import EVALUATION, RELEASE
from recbatch.stages.train import CURVE, train
from recbatch.training import curves
from tests.pipeline.slice import PICTURE_SIZE
from tests.pipeline.support import Release, rows

FILES = (artifact.WEIGHTS, artifact.NEIGHBOURS, artifact.DESCRIPTION)


def _item_ids(release: Release) -> list[str]:
    return [row["item_id"] for row in sorted(rows(release.warehouse, "item_index"), key=lambda row: row["item_idx"])]


def _artifact(warehouse: Path) -> Path:
    """The folder of the release artifact of the latest candidate."""
    latest = max(rows(warehouse, "candidates"), key=lambda row: row["model_version"])
    return warehouse / "model_artifacts" / str(latest["model_version"]) / RELEASE


def _damaged(release: Release, folder: Path, name: str, position: int) -> Path:
    """A copy of the artifact with one byte of one file turned around."""
    folder.mkdir()
    for file in FILES:
        content = bytearray((_artifact(release.warehouse) / file).read_bytes())
        if file == name:
            content[position] ^= 0xFF
        (folder / file).write_bytes(content)
    return folder


def test_training_again_with_the_seed_gives_the_same_bytes(release: Release, tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse"
    train(release.context(release.copy(warehouse), version=99))
    first, second = _artifact(release.warehouse).parent, _artifact(warehouse).parent
    assert first.name != second.name
    for kind in (EVALUATION, RELEASE):
        for name in FILES:
            assert (second / kind / name).read_bytes() == (first / kind / name).read_bytes(), (kind, name)


def test_the_course_of_the_training_lies_beside_the_model(release: Release) -> None:
    names = [file.name for file in (_artifact(release.warehouse).parent / CURVE).iterdir()]
    assert curves.FIGURES in names
    assert sum(name.startswith("events.out.tfevents.") for name in names) == 1
    assert not (release.warehouse / "_training").exists()


def test_a_network_takes_all_kinds_of_attributes(release: Release) -> None:
    ids = _item_ids(release)
    model = artifact.load(_artifact(release.warehouse), ids).model
    attributes = release.config.input.items.attributes if release.config.input.items else {}
    kinds = Counter(attribute.kind for attribute in attributes.values())
    assert kinds == {"category": 5, "text": 1, "vector": 1}
    assert (len(model.shape.field_sizes), model.shape.n_vector) == (6, PICTURE_SIZE)
    norms = [sum(one**2 for one in row["vectors"]) for row in rows(release.warehouse, "item_features")]
    assert sorted(norms) == pytest.approx([0.0, *[1.0] * (len(ids) - 1)], abs=1e-5)


@pytest.mark.parametrize(("kind", "table"), [(EVALUATION, "evaluation_user_sequences"), (RELEASE, "user_sequences")])
def test_a_network_has_learnt_of_all_items_before_its_cut(release: Release, kind: str, table: str) -> None:
    model = artifact.load(_artifact(release.warehouse).parent / kind, _item_ids(release)).model
    known = {item for row in rows(release.warehouse, table) for item in row["item_idx"]}
    assert set(model.items.trained.nonzero().flatten().tolist()) == known


def test_another_seed_gives_another_model(release: Release, tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse"
    train(release.context(release.copy(warehouse, "seed=8"), version=99))
    weights = [(_artifact(where) / artifact.WEIGHTS).read_bytes() for where in (release.warehouse, warehouse)]
    assert weights[0] != weights[1]


def test_the_artifact_loads_with_its_item_index_and_with_a_longer_one(release: Release) -> None:
    ids = _item_ids(release)
    loaded = artifact.load(_artifact(release.warehouse), ids)
    assert loaded.model.shape.n_items == len(ids) == len(loaded.neighbours)
    assert loaded.model.config.dim == release.config.model.dim
    artifact.load(_artifact(release.warehouse), [*ids, "new-item"])


def test_another_item_index_is_refused(release: Release) -> None:
    ids = _item_ids(release)
    swapped = [ids[1], ids[0], *ids[2:]]
    with pytest.raises(ModelError, match="are not those that model"):
        artifact.load(_artifact(release.warehouse), swapped)
    with pytest.raises(ModelError, match=f"knows {len(ids)} items"):
        artifact.load(_artifact(release.warehouse), ids[:-1])


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_header_is_refused(release: Release, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError):
        artifact.load(_damaged(release, tmp_path / "model", name, 0), _item_ids(release))


@pytest.mark.parametrize("name", [artifact.WEIGHTS, artifact.NEIGHBOURS])
def test_a_flipped_byte_among_the_values_is_refused(release: Release, tmp_path: Path, name: str) -> None:
    size = (_artifact(release.warehouse) / name).stat().st_size
    with pytest.raises(ModelError):
        artifact.load(_damaged(release, tmp_path / "model", name, size * 2 // 3), _item_ids(release))


def test_a_cut_file_is_refused(release: Release, tmp_path: Path) -> None:
    folder = _damaged(release, tmp_path / "model", "", 0)
    weights = (folder / artifact.WEIGHTS).read_bytes()
    (folder / artifact.WEIGHTS).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="cannot be read"):
        artifact.load(folder, _item_ids(release))
    (folder / artifact.WEIGHTS).unlink()
    with pytest.raises(ModelError, match="lacks"):
        artifact.load(folder, _item_ids(release))
