"""Specification of training windows and of the validation set, on sequences small enough to read."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from recbatch.config.learning import TrainingSection
from recbatch.errors import ModelError
from recbatch.model.histories import Sequences
from recbatch.ranking.csr import Csr
from recbatch.ranking.topk import ItemMatrix
from recbatch.training.batches import Examples, Weighting
from recbatch.training.dataset import count_items, open_sequences, stop_before
from recbatch.training.validation import Validation, Window

SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "user_bucket": pa.int32(),
        "item_idx": pa.list_(pa.int32()),
        "event_type": pa.list_(pa.int32()),
        "event_time": pa.list_(pa.int64()),
        "price": pa.list_(pa.float32()),
        "quantity": pa.list_(pa.float32()),
        "seen": pa.list_(pa.int32()),
    }
)


def write_file(path: Path, users: list[list[int]], batch_rows: int = 100) -> Path:
    """One user a list of items; its behaviours are at times 0, 10, 20..., of prices 0.5, 1.5..."""
    rows = [
        {
            "user_id": f"{path.stem}-{u}",
            "user_bucket": 0,
            "item_idx": items,
            "event_type": [n % 2 for n in range(len(items))],
            "event_time": [10 * n for n in range(len(items))],
            "price": [n + 0.5 for n in range(len(items))],
            "quantity": [0.0] * len(items),
            "seen": sorted(set(items)),
        }
        for u, items in enumerate(users)
    ]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), max_chunksize=batch_rows)
    return path


def windows_of(
    parts: list[Sequences], before: int | None, length: int, new_only: bool, rows: int = 8, **options: object
) -> Examples:
    config = {"examples": "windows", "batch_rows": rows, "targets": "new" if new_only else "all", **options}
    return Examples(parts, before, length, TrainingSection.model_validate(config))


def pairs_of(windows: Examples, seed: int = 0) -> list[tuple[list[int], list[int]]]:
    """Every window's real inputs, and its targets, -1 where not in the loss."""
    found = []
    for batch in windows.batches(np.random.default_rng(seed)):
        assert batch.counted is not None
        assert batch.histories.item_idx.shape[1] == int(batch.histories.lengths.max())
        for b, length in enumerate(batch.histories.lengths.tolist()):
            assert not batch.counted[b, length:].any()
            assert not batch.histories.item_idx[b, length:].any()
            targets = torch.full(batch.counted.shape, -1)
            targets[batch.counted] = batch.targets
            found.append((batch.histories.item_idx[b, :length].tolist(), targets[b, :length].tolist()))
    return sorted(found)


def test_files_are_read_batch_by_batch_without_a_copy(tmp_path: Path) -> None:
    file = write_file(tmp_path / "a.arrow", [[1, 2], [], [3, 4, 5]], batch_rows=2)
    parts = open_sequences([file])
    assert [part.offsets.tolist() for part in parts] == [[0, 2, 2], [0, 3]]
    assert parts[1].columns["item_idx"].tolist() == [3, 4, 5]
    assert parts[1].columns["price"].tolist() == [0.5, 1.5, 2.5]
    assert not parts[1].columns["event_time"].flags.owndata


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.arrow").write_bytes(b"not arrow")
    with pytest.raises(ModelError, match=r"broken\.arrow"):
        open_sequences([tmp_path / "broken.arrow"])


def test_windows_are_cut_from_the_end_and_cover_every_transition_once(tmp_path: Path) -> None:
    users = [[1, 2, 3, 4, 5, 6, 7, 8], [9], [10, 11], []]
    windows = windows_of(open_sequences([write_file(tmp_path / "a.arrow", users)]), None, 3, False, rows=3)
    assert pairs_of(windows) == [([1], [2]), ([2, 3, 4], [3, 4, 5]), ([5, 6, 7], [6, 7, 8]), ([10], [11])]
    assert windows.n_positions == 8
    assert windows.n_batches() == 2


def test_a_cut_hides_what_comes_after(tmp_path: Path) -> None:
    parts = open_sequences([write_file(tmp_path / "a.arrow", [[1, 2, 3, 4, 5], [6, 7], [8]])])
    assert stop_before(parts[0], 20).tolist() == [2, 7, 8]
    assert pairs_of(windows_of(parts, 30, 10, False)) == [([1, 2], [2, 3]), ([6], [7])]
    assert count_items(parts, 20, 9).tolist() == [0, 1, 1, 0, 0, 0, 1, 1, 1]


def test_new_only_counts_first_occurrences(tmp_path: Path) -> None:
    parts = open_sequences([write_file(tmp_path / "a.arrow", [[1, 2, 1, 3, 2, 4], [5, 5, 5], [2, 1]])])
    found = pairs_of(windows_of(parts, None, 3, True))
    # The user who only repeats an item teaches nothing; an item is new to a user, whatever others had.
    assert found == [([1, 2], [2, -1]), ([1, 3, 2], [3, -1, 4]), ([2], [1])]


def test_parts_and_batches_keep_rows_together(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    users = [generator.integers(0, 1000, generator.integers(0, 30)).tolist() for _ in range(90)]
    files = [write_file(tmp_path / f"{n}.arrow", users[n::3], batch_rows=7) for n in range(3)]
    windows = windows_of(open_sequences(files), None, 8, False, rows=4)
    whole = windows_of(open_sequences([write_file(tmp_path / "all.arrow", users)]), None, 8, False, rows=11)
    assert pairs_of(windows) == pairs_of(whole, seed=1)
    batches = list(windows.batches(np.random.default_rng(0)))
    for batch in batches:
        times = batch.histories.event_time
        real = torch.arange(times.shape[1]) < batch.histories.lengths[:, None]
        expected_price = torch.where(real, times / 10 + 0.5, 0.0)
        torch.testing.assert_close(batch.histories.price, expected_price.float())
    again = list(windows.batches(np.random.default_rng(0)))
    assert all(torch.equal(a.targets, b.targets) for a, b in zip(batches, again, strict=True))


def test_windows_of_like_length_share_a_batch(tmp_path: Path) -> None:
    users = [[1] * n for n in [2, 40] * 50]
    windows = windows_of(open_sequences([write_file(tmp_path / "a.arrow", users)]), None, 50, False, rows=10)
    widths = [batch.histories.item_idx.shape[1] for batch in windows.batches(np.random.default_rng(0))]
    assert sorted(widths) == [1] * 5 + [39] * 5
    assert widths != sorted(widths)


def prefixes_of(examples: Examples, seed: int = 0) -> list[tuple[list[int], int]]:
    """Every example's history and its target."""
    found = []
    for batch in examples.batches(np.random.default_rng(seed)):
        assert batch.counted is None
        for items, length, target in zip(
            batch.histories.item_idx.tolist(), batch.histories.lengths.tolist(), batch.targets.tolist(), strict=True
        ):
            found.append((items[:length], target))
    return sorted(found)


def test_every_position_is_an_example_with_the_history_before_it(tmp_path: Path) -> None:
    parts = open_sequences([write_file(tmp_path / "a.arrow", [[1, 2, 3, 4, 2], [5], [], [6, 7]])])
    found = prefixes_of(windows_of(parts, None, 3, False, examples="prefixes"))
    assert found == [([1], 2), ([1, 2], 3), ([1, 2, 3], 4), ([2, 3, 4], 2), ([6], 7)]
    new = windows_of(parts, None, 3, True, examples="prefixes")
    assert prefixes_of(new) == [([1], 2), ([1, 2], 3), ([1, 2, 3], 4), ([6], 7)]
    assert prefixes_of(windows_of(parts, 30, 3, False, examples="prefixes")) == [([1], 2), ([1, 2], 3), ([6], 7)]


def test_an_epoch_draws_no_more_positions_than_it_may(tmp_path: Path) -> None:
    parts = open_sequences([write_file(tmp_path / "a.arrow", [list(range(1, 100))])])
    some = windows_of(parts, None, 3, False, rows=8, examples="prefixes", epoch_positions=20)
    assert some.n_positions == 20
    assert some.n_batches() == len(list(some.batches(np.random.default_rng(0)))) == 3
    first, second = prefixes_of(some, seed=0), prefixes_of(some, seed=1)
    assert len(first) == len(second) == 20
    assert first != second


def test_weights_are_those_of_the_types_and_ages_of_targets(tmp_path: Path) -> None:
    parts = open_sequences([write_file(tmp_path / "a.arrow", [[1, 2, 3, 4]])])
    config = TrainingSection.model_validate(
        {"event_type_weights": {"buy": 3.0}, "recency_half_life_days": 10 / 86_400, "examples": "prefixes"}
    )
    weighting = Weighting.create(config, ["view", "buy"])
    (batch,) = Examples(parts, None, 5, config, weighting).batches(np.random.default_rng(0))
    assert batch.weights is not None
    # Times are 0, 10, 20, 30 and types alternate: a half-life before the last event counts half.
    found = dict(zip(batch.targets.tolist(), batch.weights.tolist(), strict=True))
    assert found == pytest.approx({2: 3.0 / 4, 3: 1.0 / 2, 4: 3.0})
    with pytest.raises(ModelError, match="event_type_weights names 'cart'"):
        Weighting.create(TrainingSection.model_validate({"event_type_weights": {"cart": 1.0}}), ["view", "buy"])


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    parts = open_sequences([write_file(tmp_path / "a.arrow", [[1], [2, 3]])])
    with pytest.raises(ModelError, match="before 10"):
        windows_of(parts, 10, 5, False)
    with pytest.raises(ModelError, match="item_idx 3, item_features only 3"):
        count_items(parts, None, 3)


def validation_of(tmp_path: Path, users: list[list[int]], window: Window, new_only: bool) -> Validation:
    return Validation(open_sequences([write_file(tmp_path / "v.arrow", users)]), window, new_only, 8, seed=0)


def rows_of(csr: Csr) -> list[list[int]]:
    return [csr.rows(b, b + 1).indices.tolist() for b in range(csr.n_rows)]


USERS = [[1, 2, 3, 3, 7, 0], [4], [5, 6], [1, 1, 1, 2]]


def test_validation_users_have_a_past_and_targets(tmp_path: Path) -> None:
    validation = validation_of(tmp_path, USERS, Window(20, 50), False)
    assert validation.past.columns["item_idx"].tolist() == [1, 2, 1, 1]
    assert rows_of(validation.targets) == [[3, 7], [1, 2]]
    assert validation.excluded is None


def test_validation_of_new_items_leaves_out_the_past(tmp_path: Path) -> None:
    validation = validation_of(tmp_path, USERS, Window(20, 30), True)
    assert rows_of(validation.targets) == [[3]]  # user 3 only repeats in this window
    assert validation.excluded is not None
    assert rows_of(validation.excluded) == [[1, 2]]


def test_of_many_users_some_are_drawn_from_all_files(tmp_path: Path) -> None:
    item = np.arange(60_000)
    columns = {
        "item_idx": np.stack([item, item + 1], 1).ravel().astype(np.int32),
        "event_time": np.tile([0, 10], 60_000),
    }
    empty = {name: np.zeros(120_000, np.float32) for name in ("price", "quantity")}
    columns |= {"event_type": np.zeros(120_000, np.int32), **empty}
    whole = Sequences(np.arange(60_001) * 2, columns)
    parts = [
        whole.select(whole.offsets[low:high], whole.offsets[low + 1 : high + 1])
        for low, high in ((0, 9_000), (9_000, 60_000))
    ]
    validation = Validation(parts, Window(10, 20), True, 60_001, seed=0)
    assert len(validation) == 20_000
    past = validation.past.columns["item_idx"]
    assert len(np.unique(past)) == 20_000
    assert validation.targets.indices.tolist() == (past + 1).tolist()
    assert 2_700 < (past < 9_000).sum() < 3_300  # 15%


def test_a_window_without_users_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"both before 100 and in \[100, 200\)"):
        validation_of(tmp_path, USERS, Window(100, 200), False)
    with pytest.raises(ModelError, match=r"both before 20 and new ones in \[20, 30\)"):
        validation_of(tmp_path, [[1, 1, 1]], Window(20, 30), True)


def test_ndcg_by_hand(tmp_path: Path) -> None:
    validation = validation_of(tmp_path, USERS, Window(20, 50), False)
    users = torch.tensor([[1.0], [-1.0]])
    items = ItemMatrix(torch.arange(8.0)[:, None], torch.zeros(8), torch.arange(8))
    # User 0 is shown 7 6 5 4 3 2 1 0 and took 3 and 7: ranks 5 and 1. User 3 is shown 0 1 2... and took 1 and 2.
    ideal = 1 + 1 / math.log2(3)
    first = (1 + 1 / math.log2(6)) / ideal
    second = (1 / math.log2(3) + 1 / math.log2(4)) / ideal
    assert validation.ndcg(users, items) == pytest.approx((first + second) / 2)
    # An addition that lifts item 3 to the top of user 0's list makes that list ideal.
    lift = Csr(torch.tensor([0, 1, 1]), torch.tensor([3], dtype=torch.int32), torch.tensor([100.0]))
    assert validation.ndcg(users, items, lift) == pytest.approx((1 + second) / 2)
