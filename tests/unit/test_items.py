"""Specification of item features and of the item tower."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from recbatch.model.items import ItemFeatures, ItemTower


def make_table(rows: list[tuple[int, list[list[int]], list[float]]]) -> pa.Table:
    return pa.table(
        {
            "item_idx": pa.array([row[0] for row in rows], pa.int32()),
            "item_id": [f"item-{row[0]}" for row in rows],
            "categories": pa.array([row[1] for row in rows], pa.list_(pa.list_(pa.int32()))),
            "numbers": pa.array([row[2] for row in rows], pa.list_(pa.float32())),
        }
    )


ROWS = [
    (2, [[3, 1], [0]], [0.5]),
    (0, [[1], [2]], [-1.0]),
    (1, [[], [2, 1]], [0.0]),
    (3, [[3, 1], [0]], [0.5]),
]


def trained_tower(features: ItemFeatures, n_items: int) -> ItemTower:
    torch.manual_seed(0)
    tower = ItemTower(n_items, features.field_sizes, features.numbers.shape[1], 8, 0.1)
    with torch.no_grad():
        tower.gate.copy_(torch.rand_like(tower.gate) + 0.5)
        tower.id_bias.copy_(torch.randn(n_items))
        tower.attribute_bias.copy_(torch.randn(8))
    tower.trained.fill_(True)
    return tower.eval()


def test_features_from_arrow_in_any_order() -> None:
    features = ItemFeatures.from_arrow(make_table(ROWS))
    assert len(features) == 4
    assert features.field_sizes == (4, 3)
    assert [tensor.tolist() for tensor in features.categories[0]] == [[0, 1, 1, 3, 5], [1, 3, 1, 3, 1]]
    assert [tensor.tolist() for tensor in features.categories[1]] == [[0, 1, 3, 4, 5], [2, 2, 1, 0, 0]]
    assert features.numbers.flatten().tolist() == [-1.0, 0.0, 0.5, 0.5]
    codes, begin = features.bags(0, torch.tensor([3, 1, 0]))
    assert (codes.tolist(), begin.tolist()) == ([3, 1, 1], [0, 2, 2])


def test_features_of_a_sliced_and_chunked_table() -> None:
    table = pa.concat_tables([make_table(ROWS[:1]), make_table(ROWS)[1:3], make_table(ROWS)[3:]])
    features, expected = ItemFeatures.from_arrow(table), ItemFeatures.from_arrow(make_table(ROWS))
    assert torch.equal(features.numbers, expected.numbers)
    for field, other in zip(features.categories, expected.categories, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(field, other, strict=True))


def test_features_without_fields_or_numbers() -> None:
    features = ItemFeatures.from_arrow(make_table([(0, [], []), (1, [], [])]))
    assert (len(features), features.field_sizes, features.numbers.shape) == (2, (), (2, 0))
    vectors, bias = trained_tower(features, 2)(features, torch.arange(2))
    assert (vectors.shape, bias.shape) == ((2, 8), (2,))


def test_indices_with_a_gap_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not 0\.\.1"):
        ItemFeatures.from_arrow(make_table([(0, [[1]], [0.0]), (2, [[1]], [0.0])]))


def test_a_vector_is_id_plus_gated_attributes_plus_numbers() -> None:
    features = ItemFeatures.from_arrow(make_table(ROWS))
    tower = trained_tower(features, 4)
    vectors, bias = tower(features, torch.arange(4))
    first, second = tower.state_dict()["fields.0.weight"], tower.state_dict()["fields.1.weight"]
    assert tower.numbers is not None
    attributes = (first[3] + first[1]) / 2 * tower.gate[1, 0] + tower.numbers.weight[:, 0] * 0.5
    torch.testing.assert_close(vectors[2], tower.id.weight[2] + attributes)
    torch.testing.assert_close(bias[2], tower.id_bias[2] + attributes @ tower.attribute_bias)
    torch.testing.assert_close(vectors[1], tower.id.weight[1] + (second[2] + second[1]) / 2 * tower.gate[1, 1])
    assert first[0].tolist() == [0.0] * 8  # missing adds nothing


def test_subsets_give_the_rows_of_the_whole() -> None:
    features = ItemFeatures.from_arrow(make_table(ROWS))
    tower = trained_tower(features, 4)
    vectors, bias = tower(features, torch.arange(4))
    some_vectors, some_bias = tower(features, torch.tensor([3, 0]))
    torch.testing.assert_close(some_vectors, vectors[[3, 0]])
    torch.testing.assert_close(some_bias, bias[[3, 0]])


def test_new_and_untrained_items_are_their_attributes_alone() -> None:
    features = ItemFeatures.from_arrow(make_table(ROWS))
    tower = trained_tower(features, 3)  # item 3 came after training
    tower.trained[2] = False  # item 2 was never interacted with; its attributes are those of item 3
    vectors, bias = tower(features, torch.arange(4))
    assert torch.equal(vectors[2], vectors[3])
    assert torch.equal(bias[2], bias[3])
    tower.trained[2] = True
    assert not torch.allclose(tower(features, torch.arange(4))[0][2], vectors[3])


def test_a_category_newer_than_the_model_counts_as_missing() -> None:
    features = ItemFeatures.from_arrow(make_table(ROWS))
    tower = trained_tower(features, 4)
    newer = ItemFeatures.from_arrow(make_table([*ROWS, (4, [[9], [2]], [0.0]), (5, [[0], [2]], [0.0])]))
    vectors, _ = tower(newer, torch.tensor([4, 5]))
    assert torch.equal(vectors[0], vectors[1])


def test_training_hides_some_ids_so_that_attributes_learn() -> None:
    features = ItemFeatures(((torch.arange(4001), torch.ones(4000, dtype=torch.int64)),), torch.zeros(4000, 0))
    tower = trained_tower(features, 4000).train()
    vectors, _ = tower(features, torch.arange(4000))
    alone = tower.state_dict()["fields.0.weight"][1] * tower.gate[0, 0]
    hidden = (vectors == alone).all(1).float().mean().item()
    assert 0.07 < hidden < 0.13
