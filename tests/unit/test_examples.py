"""Specification of training examples: each position once, with its history and weight, in little memory."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbatch.config.learning import TrainingSection
from recbatch.model.histories import Sequences
from recbatch.training.batches import Examples, Weighting
from recbatch.training.dataset import chunks, count_items, open_sequences, stop_before
from recbatch.training.positions import Positions

N_TYPES = 3
# Powers of two, so that the weights of float32 are exact.
WEIGHTING = Weighting(np.array([1, 4, 0.5], np.float32), half_life=1.0)
# A behaviour: item, event type, time. An example: a history as (item, time), its targets as (item, weight) or None.
Behaviour = tuple[int, int, int]
Example = tuple[tuple[tuple[int, int], ...], tuple[tuple[int, float] | None, ...]]
BEHAVIOURS = st.tuples(st.integers(0, 5), st.integers(0, N_TYPES - 1), st.integers(0, 20))
USERS = st.lists(st.lists(BEHAVIOURS, max_size=9).map(lambda some: sorted(some, key=lambda one: one[2])), max_size=5)


def part_of(users: list[list[Behaviour]]) -> Sequences:
    flat = [one for user in users for one in user]
    offsets = np.cumsum([0, *(len(user) for user in users)])
    columns = {
        "item_idx": np.array([one[0] for one in flat], np.int32),
        "event_type": np.array([one[1] for one in flat], np.int32),
        "event_time": np.array([one[2] for one in flat], np.int64),
        "price": np.zeros(len(flat), np.float32),
        "quantity": np.zeros(len(flat), np.float32),
    }
    return Sequences(offsets, columns)


def expected(
    users: list[list[Behaviour]], before: int | None, length: int, config: TrainingSection
) -> Iterator[Example]:
    """By the definition, one behaviour after the other."""
    latest = max((one[2] for user in users for one in user), default=0)
    latest = latest if before is None else min(latest, before)
    for user in users:
        known = [one for one in user if before is None or one[2] < before]
        targets: list[tuple[int, float] | None] = []
        for n, (item, kind, time) in enumerate(known):
            repeated = item in [one[0] for one in known[:n]]
            weight = (1, 4, 0.5)[kind] * 2.0 ** (time - latest)
            targets.append(None if repeated and config.targets == "new" else (item, weight))
        stops = range(1, len(known)) if config.examples == "prefixes" else range(len(known) - 1, 0, -length)
        for stop in stops:
            start = max(0, stop - length)
            shown = targets[stop : stop + 1] if config.examples == "prefixes" else targets[start + 1 : stop + 1]
            if any(shown):
                yield tuple((one[0], one[2]) for one in known[start:stop]), tuple(shown)


def found(examples: Examples) -> Iterator[Example]:
    for batch in examples.batches(np.random.default_rng(0)):
        histories, lengths = batch.histories, batch.histories.lengths.tolist()
        assert batch.weights is not None
        told = zip(batch.targets.tolist(), batch.weights.tolist(), strict=True)
        for b, length in enumerate(lengths):
            history = zip(histories.item_idx[b].tolist(), histories.event_time[b].tolist(), strict=True)
            real = [True] if batch.counted is None else batch.counted[b, :length].tolist()
            yield tuple(history)[:length], tuple(next(told) if one else None for one in real)
        assert not list(told)


@pytest.mark.parametrize("examples", ["prefixes", "windows"])
@pytest.mark.parametrize("targets", ["all", "new"])
@given(
    parts=st.lists(USERS, max_size=4),
    before=st.none() | st.integers(0, 21),
    length=st.integers(1, 10),
    rows=st.integers(1, 7),
)
def test_every_position_is_learnt_once_with_the_history_before_it(
    examples: str, targets: str, parts: list[list[list[Behaviour]]], before: int | None, length: int, rows: int
) -> None:
    config = TrainingSection.model_validate({"examples": examples, "targets": targets, "batch_rows": rows})
    users = [user for part in parts for user in part]
    wanted = Counter(expected(users, before, length, config))
    sequences = [part_of(part) for part in parts]
    if not wanted:
        with pytest.raises(Exception, match="no user has two behaviours to learn from"):
            Examples(sequences, before, length, config, WEIGHTING)
        return
    made = Examples(sequences, before, length, config, WEIGHTING)
    assert Counter(found(made)) == wanted
    assert len(made) == wanted.total()
    assert made.n_positions == sum(1 if examples == "prefixes" else len(one[0]) for one in wanted.elements())
    assert made.n_batches() == -(-len(made) // rows)


@given(users=USERS, moment=st.integers(0, 21))
def test_what_lies_before_a_moment_is_found_and_counted(users: list[list[Behaviour]], moment: int) -> None:
    part = part_of(users)
    known = [[one[0] for one in user if one[2] < moment] for user in users]
    assert (stop_before(part, moment) - part.offsets[:-1]).tolist() == [len(items) for items in known]
    counts = Counter(item for items in known for item in items)
    assert count_items([part, part], moment, 6).tolist() == [2 * counts[item] for item in range(6)]


@pytest.mark.parametrize("drawn", [1, 40, 41, 1999, 2000])
def test_few_of_many_positions_are_drawn_evenly_and_none_twice(drawn: int) -> None:
    part = part_of([[(item, 0, item) for item in range(2001)]])
    config = TrainingSection.model_validate({"examples": "prefixes", "epoch_positions": drawn})
    examples = Examples([part], None, 1, config)
    generator = np.random.default_rng(0)
    counts = np.zeros(2001, np.int64)
    for _ in range(20):
        targets = np.concatenate([batch.targets.numpy() for batch in examples.batches(generator)])
        assert len(targets) == len(np.unique(targets)) == drawn
        counts[targets] += 1
    assert counts[0] == 0
    # Over both halves alike, within five standard deviations of the hypergeometric distribution.
    spread = np.sqrt(20 * drawn * (2000 - drawn) / 1999 / 4)
    assert abs(counts[:1001].sum() - 10 * drawn) <= 5 * spread


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many behaviours that what is computed of a few users at once does not count."""
    generator = np.random.default_rng(0)
    sizes = np.append(generator.integers(0, 300, 5000), 100_000)  # the last user alone has more than a chunk
    offsets = pa.array(np.append(0, sizes.cumsum()).astype(np.int32))
    n = int(sizes.sum())
    columns = {
        "item_idx": generator.integers(0, 1000, n).astype(np.int32),
        "event_type": np.zeros(n, np.int32),
        "event_time": np.arange(n),
        "price": np.zeros(n, np.float32),
        "quantity": np.zeros(n, np.float32),
    }
    lists = {name: pa.ListArray.from_arrays(offsets, pa.array(column)) for name, column in columns.items()}
    file = tmp_path_factory.mktemp("long") / "sequences.arrow"
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, pa.table(lists).schema) as writer:
        writer.write_table(pa.table(lists))
    return file


def test_chunks_cover_all_users_in_order_and_copy_nothing(long_file: Path) -> None:
    (part,) = open_sequences([long_file])
    found = list(chunks(part))
    assert len(found) > 5
    assert [n for users, _ in found for n in range(users.start, users.stop)] == list(range(len(part)))
    for name, column in part.columns.items():
        assert np.array_equal(np.concatenate([some.columns[name] for _, some in found]), column)
        assert all(np.shares_memory(some.columns[name], column) for _, some in found)
    assert all(len(some) == 1 or some.offsets[-1] <= 1 << 16 for _, some in found)


@pytest.mark.parametrize("targets", ["all", "new"])
@pytest.mark.parametrize("examples", ["prefixes", "windows"])
def test_examples_do_not_depend_on_how_users_are_chunked(examples: str, targets: str, long_file: Path) -> None:
    (part,) = open_sequences([long_file])
    before = int(part.columns["event_time"][-1])
    config = TrainingSection.model_validate({"examples": examples, "targets": targets})
    whole = Positions.create(part, before, 50, config)
    pieces = [(part.offsets[users.start], Positions.create(some, before, 50, config)) for users, some in chunks(part)]
    assert whole.targets.tolist() == np.concatenate([begin + piece.targets for begin, piece in pieces]).tolist()
    assert whole.n_positions == sum(piece.n_positions for _, piece in pieces)
    stops = np.concatenate([begin + stop_before(piece.sequences, before) for begin, piece in pieces])
    assert stop_before(part, before).tolist() == stops.tolist()


@pytest.mark.parametrize("targets", ["all", "new"])
@pytest.mark.parametrize("examples", ["prefixes", "windows"])
def test_no_more_than_eight_bytes_a_position_are_kept(examples: str, targets: str, long_file: Path) -> None:
    (part,) = open_sequences([long_file])
    config = TrainingSection.model_validate({"examples": examples, "targets": targets, "batch_rows": 8})
    behaviours = int(part.offsets[-1])
    tracemalloc.start()
    try:
        made = Examples([part], int(part.columns["event_time"][-1]), 50, config)
        built, peak = tracemalloc.get_traced_memory()
        epoch = made.batches(np.random.default_rng(0))
        next(epoch)
        learning, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert built < 4.1 * behaviours
    assert learning < 8.1 * behaviours  # with the order of the epoch
    # The user with the most behaviours is looked at as a whole.
    assert peak < 8.1 * behaviours + 80 * 100_000
