"""Sorting inside compiled loops. numpy's own functions take numba many seconds to compile; these take tenths of one."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbatch.compilation import compiled

_RUN = 32  # up to here insertion sort is the fastest; it is also linear on what is in order already


@compiled
def sort_places(order: Any, major: Any, minor: Any) -> None:
    """Sort the places in `order` by major, then by minor; what is equal in both stays in its order (a merge sort)."""
    size = len(order)
    for start in range(0, size, _RUN):
        for at in range(start + 1, min(start + _RUN, size)):
            moved, to = order[at], at
            while to > start and (
                major[order[to - 1]] > major[moved]
                or (major[order[to - 1]] == major[moved] and minor[order[to - 1]] > minor[moved])
            ):
                order[to] = order[to - 1]
                to -= 1
            order[to] = moved
    width = _RUN
    while width < size:
        before = order.copy()
        for start in range(0, size, 2 * width):
            left, middle = start, min(start + width, size)
            right, stop = middle, min(start + 2 * width, size)
            for to in range(start, stop):
                one = left < middle
                if one and right < stop:
                    a, b = before[left], before[right]
                    one = major[a] < major[b] or (major[a] == major[b] and minor[a] <= minor[b])
                order[to] = before[left if one else right]
                left, right = left + one, right + (not one)
        width *= 2


@compiled
def sort_numbers(values: Any) -> None:
    """Sort in place, ascending: a shell sort with the gaps of Ciura (2001), continued by the factor 2.25."""
    gap = 1
    while gap < len(values) // 3:
        gap = int(gap * 2.25) + 1
    while gap:
        for at in range(gap, len(values)):
            moved, to = values[at], at
            while to >= gap and values[to - gap] > moved:
                values[to] = values[to - gap]
                to -= gap
            values[to] = moved
        gap = int(gap / 2.25)


@compiled
def nth_largest(values: Any, n: int) -> Any:
    """The n-th largest value, n from 1 (Hoare's selection)."""
    left, low, high, wanted = values.copy(), 0, len(values) - 1, len(values) - n
    while low < high:
        pivot = left[(low + high) // 2]
        up, down = low, high
        while up <= down:
            while left[up] < pivot:
                up += 1
            while left[down] > pivot:
                down -= 1
            if up <= down:
                left[up], left[down] = left[down], left[up]
                up, down = up + 1, down - 1
        if wanted <= down:
            high = down
        elif wanted >= up:
            low = up
        else:
            break
    return left[wanted]


@compiled
def count_up(size: int) -> Any:
    """0, 1, 2 ... size - 1."""
    numbers = np.empty(size, np.int64)
    for at in range(size):
        numbers[at] = at
    return numbers
