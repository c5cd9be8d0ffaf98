"""Specification of item features and of the item tower."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from recbatch.model.items import ItemFeatures, ItemTower


def make_table(
    rows: list[tuple[int, list[list[int]], list[float]]], vectors: dict[int, list[float]] | None = None
) -> pa.Table:
    return pa.table(
        {
            "item_idx": pa.array([row[0] for row in rows], pa.int32()),
            "item_id": [f"item-{row[0]}" for row in rows],
            "categories": pa.array([row[1] for row in rows], pa.list_(pa.list_(pa.int32()))),
            "numbers": pa.array([row[2] for row in rows], pa.list_(pa.float32())),
            "vectors": pa.array([(vectors or {}).get(row[0], []) for row in rows], pa.list_(pa.float32())),
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
    tower = ItemTower(n_items, features.field_sizes, features.numbers.shape[1], 8, 0.1, features.vectors.shape[1])
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


def test_an_item_without_attributes_keeps_its_id_in_training() -> None:
    n_items = 1000
    bare = ItemFeatures(
        ((torch.arange(n_items + 1), torch.zeros(n_items, dtype=torch.int64)),), torch.zeros(n_items, 2)
    )
    tower = trained_tower(bare, n_items)
    expected = tower(bare, torch.arange(n_items))
    shown = tower.train()(bare, torch.arange(n_items))
    assert torch.equal(shown[0], expected[0])
    assert torch.equal(shown[1], expected[1])


def test_an_item_is_described_by_any_category_number_or_vector() -> None:
    rows = [(0, [[0], [0]], [0.0]), (1, [[0], [2]], [0.0]), (2, [[0], [0]], [-0.5]), (3, [[0], [0]], [0.0])]
    described = ItemFeatures.from_arrow(make_table(rows, {0: [0.0], 1: [0.0], 2: [0.0], 3: [0.1]})).described
    assert described.tolist() == [False, True, True, True]
    several = ItemFeatures.from_arrow(make_table([(0, [[], [0, 3]], [0.0]), (1, [[], [0, 0]], [0.0])])).described
    assert several.tolist() == [True, False]
    assert ItemFeatures((), torch.zeros(3, 0)).described.tolist() == [False] * 3


VECTORS = {0: [1.0, 0.0, 0.6], 1: [0.0, 1.0, 0.8], 2: [0.0, 0.0, 0.0], 3: [0.6, 0.8, 0.0]}


def test_given_vectors_are_projected_and_missing_ones_add_nothing() -> None:
    bare, features = ItemFeatures.from_arrow(make_table(ROWS)), ItemFeatures.from_arrow(make_table(ROWS, VECTORS))
    assert (bare.vectors.shape, features.vectors.shape) == ((4, 0), (4, 3))
    torch.testing.assert_close(features.vectors, torch.tensor(list(VECTORS.values())))
    tower = trained_tower(features, 4)
    assert tower.vectors is not None
    vectors, bias = tower(features, torch.tensor([2, 3]))
    # Items 2 and 3 have the same categories and numbers.
    added = 0.6 * tower.vectors.weight[:, 0] + 0.8 * tower.vectors.weight[:, 1]
    torch.testing.assert_close(vectors[1] - tower.id.weight[3], vectors[0] - tower.id.weight[2] + added)
    torch.testing.assert_close(bias[1] - tower.id_bias[3], bias[0] - tower.id_bias[2] + added @ tower.attribute_bias)


def test_a_projected_vector_of_norm_one_begins_as_large_as_an_embedding() -> None:
    torch.manual_seed(1)
    given = torch.nn.functional.normalize(torch.randn(500, 300), dim=1)
    tower = ItemTower(500, (), 0, 64, 0.1, 300)
    assert tower.vectors is not None
    torch.testing.assert_close(tower.vectors(given).std(), tower.id.weight.std(), rtol=0.05, atol=0.0)


def test_a_tower_without_vectors_draws_the_same_numbers_and_has_the_same_weights() -> None:
    """As it was before there were vectors: modules and draws in this order, and no other."""
    torch.manual_seed(5)
    tower = ItemTower(6, (4, 3), 2, 8, 0.1)
    after = torch.rand(1)
    torch.manual_seed(5)
    embedding = torch.nn.Embedding(6, 8)
    bags = [torch.nn.EmbeddingBag(size, 8, mode="mean", padding_idx=0) for size in (4, 3)]
    numbers = torch.nn.Linear(2, 8, bias=False)
    weights = [embedding.weight, *(bag.weight for bag in bags), numbers.weight]
    for weight in weights:
        torch.nn.init.normal_(weight, std=0.02)
    with torch.no_grad():
        for bag in bags:
            bag.weight[0] = 0.0
    assert torch.equal(after, torch.rand(1))
    found = tower.state_dict()
    names = ["id.weight", "fields.0.weight", "fields.1.weight", "numbers.weight"]
    assert all(torch.equal(found[name], weight) for name, weight in zip(names, weights, strict=True))
    assert set(found) == {*names, "gate", "id_bias", "attribute_bias", "trained"}


def test_a_vector_alone_ranks_unseen_items() -> None:
    """Users like what looks like their direction; the last items are never shown, and have no other attribute."""
    torch.manual_seed(2)
    n_items, n_seen, dim, width = 120, 80, 8, 6
    looks = torch.nn.functional.normalize(torch.randn(n_items, width), dim=1)
    users = torch.nn.functional.normalize(torch.randn(60, width), dim=1)
    features = ItemFeatures((), torch.zeros(n_items, 0), looks)
    tower, tastes = ItemTower(n_items, (), 0, dim, 0.3, width), torch.nn.Embedding(60, dim)
    tower.trained[:n_seen] = True
    wanted = (users @ looks.t()).argsort(dim=1, descending=True)
    chosen = torch.stack([row[row < n_seen][:8] for row in wanted])
    optimizer = torch.optim.Adam([*tower.parameters(), *tastes.parameters()], lr=0.02)
    projection = tower.vectors
    assert projection is not None
    for _ in range(150):
        vectors, bias = tower(features, torch.arange(n_seen))
        scores = (tastes.weight @ vectors.t() + bias).log_softmax(dim=1)
        optimizer.zero_grad()
        loss = -scores.gather(1, chosen).mean()
        loss.backward()
        assert projection.weight.grad is not None
        assert projection.weight.grad.abs().sum() > 0
        optimizer.step()
    vectors, bias = tower.eval()(features, torch.arange(n_seen, n_items))
    ranked = (tastes.weight @ vectors.t() + bias).argsort(dim=1, descending=True)[:, :5] + n_seen
    likes = (users @ looks.t()).gather(1, ranked)
    # In units of what looks differ by: five at random would be at 0.
    spread = (users @ looks[n_seen:].t()).std(dim=1).mean()
    assert (likes.mean() / spread).item() > 1.0
