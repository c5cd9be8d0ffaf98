"""What every model of `benchmarks/sequences` is measured by: the same data, the same split, the same ranking.

Leave-one-out: of every user, the last item is the test, the one before it the validation, all before them the training.
A model ranks all items but those of the user's history; there is no sampling of candidates. Depends on numpy only, so
that the environment of a peer can import it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Items = NDArray[np.int64]
# Takes the histories of B users, returns (B, I + 1) scores: a column an item. Column 0 is padding and is not ranked.
Score = Callable[[Sequence[Items]], NDArray[np.floating]]

CUTOFF = 10


class Questions(NamedTuple):
    """histories: what the model may see of each user, oldest first. targets: (users,) the item that came next."""

    histories: list[Items]
    targets: Items


class LeaveOneOut(NamedTuple):
    """n_items: I; items are 1..I. train: what to learn from. The histories of `test` end with `validation.targets`."""

    n_items: int
    train: list[Items]
    validation: Questions
    test: Questions


def read_sequences(path: Path, seed: int = 0) -> list[Items]:
    """Sequences of a file with lines `user item item ...`, in time order, one a line.

    Items are renumbered 1..I at random: in many files an item has a smaller number the earlier or the more often it
    occurs, which would break ties in favour of popular items, or worse.

    Raises:
        ValueError: a line has no item.
    """
    numbers: dict[str, int] = {}
    sequences: list[list[int]] = []
    with path.open() as lines:
        for row, line in enumerate(lines, 1):
            items = line.split()[1:]
            if not items:
                raise ValueError(f"Line {row} of {path} has no item; expected `user item item ...`")
            sequences.append([numbers.setdefault(item, len(numbers)) for item in items])
    renumbered = 1 + np.random.default_rng(seed).permutation(len(numbers))
    return [renumbered[sequence] for sequence in sequences]


def leave_one_out(sequences: Sequence[Items]) -> LeaveOneOut:
    """Splits every sequence into training, validation and test.

    Raises:
        ValueError: a sequence has fewer than three items.
    """
    for row, sequence in enumerate(sequences):
        if len(sequence) < 3:
            raise ValueError(f"Sequence {row} has {len(sequence)} items; leave-one-out needs three or more")
    train = [sequence[:-2] for sequence in sequences]
    validation = Questions(train, np.array([sequence[-2] for sequence in sequences], dtype=np.int64))
    test = Questions(
        [sequence[:-1] for sequence in sequences], np.array([sequence[-1] for sequence in sequences], dtype=np.int64)
    )
    return LeaveOneOut(max(int(sequence.max()) for sequence in sequences), train, validation, test)


def full_rows(sequences: Sequence[Items], length: int, seed: int = 0) -> Items:
    """(rows, length + 1): the sequences behind one another in random order, cut into rows; the rest is left out.

    Every row gives `length` pairs of an item and the next one, so that nothing is padding: what a model trains in a
    second is then a matter of its arithmetic only.

    Raises:
        ValueError: there are too few items for a single row.
    """
    order = np.random.default_rng(seed).permutation(len(sequences))
    items = np.concatenate([sequences[row] for row in order])
    rows = len(items) // (length + 1)
    if rows == 0:
        raise ValueError(f"{len(items)} items do not fill a row of {length + 1}")
    return items[: rows * (length + 1)].reshape(rows, length + 1)


def rank_metrics(score: Score, questions: Questions, batch: int = 256) -> dict[str, float]:
    """Mean recall@10 and ndcg@10 over users; with one target, ndcg is 1 / log2(rank + 2), ranks from 0.

    Raises:
        ValueError: there are no questions, or a score is not a number.
    """
    found = ranks(score, questions, batch)
    if not len(found):
        raise ValueError("No users to take the mean of")
    hits = found < CUTOFF
    return {
        f"recall@{CUTOFF}": float(hits.mean()),
        f"ndcg@{CUTOFF}": float((hits / np.log2(found + 2)).mean()),
    }


def ranks(score: Score, questions: Questions, batch: int = 256) -> NDArray[np.float64]:
    """(users,) the rank of each target among all items but the other ones of the history, from 0.

    A target that shares its score with others gets the rank that it has in the mean over all orders of them, so that
    no order of item numbers helps: a model that scores all items alike has every target in the middle.

    Raises:
        ValueError: a score is not a number.
    """
    found = [
        _ranks(score(questions.histories[start : start + batch]), questions, start)
        for start in range(0, len(questions.targets), batch)
    ]
    return np.concatenate(found) if found else np.empty(0)


def _ranks(scores: NDArray[np.floating], questions: Questions, start: int) -> NDArray[np.float64]:
    """scores: (B, I + 1), of the users from `start` on."""
    rows = np.arange(len(scores))
    targets = questions.targets[start : start + len(scores)]
    histories = questions.histories[start : start + len(scores)]
    if np.isnan(scores[:, 1:]).any():
        raise ValueError(f"A score of one of the users {start}..{start + len(scores) - 1} is not a number")
    ranked = np.ones(scores.shape, dtype=bool)
    ranked[:, 0] = False
    ranked[np.repeat(rows, [len(history) for history in histories]), np.concatenate(histories)] = False
    ranked[rows, targets] = True  # the target may be an item that the user comes back to
    own = scores[rows, targets][:, None]
    greater = ((scores > own) & ranked).sum(axis=1)
    ties = ((scores == own) & ranked).sum(axis=1)
    found: NDArray[np.float64] = greater + (ties - 1) / 2
    return found
