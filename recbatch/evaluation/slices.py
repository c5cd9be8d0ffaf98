"""Parts of a test: by how new the relevant items are, by how much is known of the user, and by category.

The lists of a slice are those of the whole test, over all items. A slice of items restricts what counts as relevant,
and so leaves out the users without a relevant item in it; a slice of users restricts the users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recbatch.evaluation.metrics import FloatArray, IntArray, Truth, ranking_metrics

WHOLE = "all"
CUTOFF = 10
METRICS = (f"ndcg@{CUTOFF}", f"recall@{CUTOFF}")
# Values of one attribute with a slice each: further ones are too small for their intervals to tell anything.
LARGEST_VALUES = 5
_MISSING_CODE = 0

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Slice:
    """One part: `users` (N,) of the test, `items` (I,) that count where relevant; None is all of them."""

    name: str
    users: BoolArray | None = None
    items: BoolArray | None = None


@dataclass(frozen=True, eq=False)
class Attribute:
    """A category attribute of I items: item i has the codes `codes[indptr[i]:indptr[i + 1]]`, 0 for a missing value.

    values: the text of every code.
    """

    indptr: IntArray
    codes: IntArray
    values: Mapping[int, str]


def by_age(seen_before: BoolArray) -> list[Slice]:
    """`new_items` and `old_items`; seen_before: (I,), whether the log knew the item before its last days."""
    return [Slice("new_items", items=~seen_before), Slice("old_items", items=seen_before)]


def by_history(lengths: IntArray) -> list[Slice]:
    """`light_users`, with fewer behaviours than the median of `lengths` (N,), and `heavy_users`, with at least it."""
    light = lengths < np.median(lengths)
    return [Slice("light_users", users=light), Slice("heavy_users", users=~light)]


def by_category(attributes: Mapping[str, Attribute], truth: Truth) -> list[Slice]:
    """`<attribute>=<value>` for the values that hold the most relevant pairs of `truth`, the largest first.

    An item of several values is in the slice of each; equally large ones are ordered by their code.
    """
    slices = []
    for name, attribute in attributes.items():
        n_items = len(attribute.indptr) - 1
        pairs = np.bincount(truth.indices, minlength=n_items)
        item = np.repeat(np.arange(n_items), np.diff(attribute.indptr))
        sizes = np.bincount(attribute.codes, pairs[item])
        sizes[: _MISSING_CODE + 1] = 0  # of no code at all, bincount makes an empty array
        for code in np.argsort(-sizes, kind="stable")[:LARGEST_VALUES].tolist():
            if sizes[code]:
                mask = np.zeros(n_items, dtype=np.bool_)
                mask[item[attribute.codes == code]] = True
                slices.append(Slice(f"{name}={attribute.values[code]}", items=mask))
    return slices


def restricted(truth: Truth, part: Slice) -> tuple[NDArray[np.int64], Truth | None]:
    """The users (M,) of a slice by their row, and what is relevant for them; None where nothing is."""
    rows = np.repeat(np.arange(truth.counts.size), truth.counts)
    kept = np.ones(rows.size, dtype=np.bool_)
    if part.users is not None:
        kept &= part.users[rows]
    if part.items is not None:
        kept &= part.items[truth.indices]
    users, counts = np.unique(rows[kept], return_counts=True)
    if not users.size:
        return users, None
    return users, Truth(np.concatenate([[0], counts.cumsum()]), truth.indices[kept])


def slice_metrics(lists: IntArray, truth: Truth, part: Slice) -> dict[str, FloatArray]:
    """METRICS of the users of a slice, (M,) each; nothing where the slice has no user. lists: (N, K) as ranked."""
    users, relevant = restricted(truth, part)
    if relevant is None:
        return {}
    found = ranking_metrics(lists[users], relevant, [CUTOFF])
    return {name: found[name] for name in METRICS}
